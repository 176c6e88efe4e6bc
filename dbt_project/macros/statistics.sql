{#-
    Statistics of experiments, in SQL.
    Belongs here: distribution functions and intervals, each of numbers in columns. Does not belong here: what is compared.

    erfc: Numerical Recipes' Chebyshev fit, fractional error below 1.2e-7 for every argument from 0 on. chi2_survival: the exact finite
    sums of the regularised incomplete gamma function for whole degrees of freedom, so no library is needed.
-#}

{#- Complementary error function of a number >= 0. -#}
{% macro erfc(z) -%}
    {%- set t = '(1 / (1 + 0.5 * (' ~ z ~ ')))' -%}
    {%- set fit = [1.00002368, 0.37409196, 0.09678418, -0.18628806, 0.27886807, -1.13520398, 1.48851587, -0.82215223, 0.17087277] -%}
    {%- set terms = [] -%}
    {%- for coefficient in fit -%}{%- do terms.append('(' ~ coefficient ~ ')::double * power(' ~ t ~ ', ' ~ loop.index ~ ')') -%}{%- endfor -%}
    {{ t }} * exp(-({{ z }}) * ({{ z }}) - 1.26551223 + {{ terms | join(' + ') }})
{%- endmacro %}

{#- Two-sided p-value of a standard normal statistic. -#}
{% macro normal_two_sided(z) -%}
    ({{ erfc('abs(' ~ z ~ ') / sqrt(2)') }})
{%- endmacro %}

{#- P(X >= statistic) of chi-square with whole degrees of freedom >= 1; NULL where either is NULL or there are none. Both are columns. -#}
{% macro chi2_survival(statistic, degrees) -%}
    {%- set half = '(' ~ statistic ~ ' / 2.0)' -%}
    case
        when {{ statistic }} is null or {{ degrees }} is null or {{ degrees }} < 1 then null
        when {{ statistic }} <= 0 then 1.0
        when {{ degrees }} % 2 = 0 then
            list_sum(list_transform(
                range(0, cast({{ degrees }} // 2 as bigint)),
                lambda k: exp(k * ln({{ half }}) - {{ half }} - lgamma(k + 1.0))
            ))
        else
            {{ erfc('sqrt' ~ half) }} + coalesce(list_sum(list_transform(
                range(1, cast(({{ degrees }} - 1) // 2 + 1 as bigint)),
                lambda k: exp((k - 0.5) * ln({{ half }}) - {{ half }} - lgamma(k + 0.5))
            )), 0)
    end
{%- endmacro %}

{#- One end of the 95 % Wilson interval of a proportion: side -1 is the low end, 1 the high one; NULL without trials. -#}
{% macro wilson(successes, trials, side) -%}
    {%- set z = 1.959964 -%}
    {%- set p = '(cast(' ~ successes ~ ' as double) / ' ~ trials ~ ')' -%}
    case when {{ trials }} > 0 then greatest(0, least(1, (
        {{ p }} + {{ z * z / 2 }} / {{ trials }}
        + {{ side }} * {{ z }} * sqrt({{ p }} * (1 - {{ p }}) / {{ trials }} + {{ z * z / 4 }} / power({{ trials }}, 2))
    ) / (1 + {{ z * z }} / {{ trials }}))) end
{%- endmacro %}
