// Kameleoon's own JavaScript SDK, unpatched, through its official extension point `externals.requester`.
//
// Belongs here: a browser as small as the SDK needs (document, localStorage, navigator), the requester that sends what
// the SDK composed to loopback, and calling its methods by name. Does not belong here: what the answers should be
// (`test_kameleoon_javascript_sdk.py`).
"use strict";

const stored = new Map();
const browser = {
  document: { cookie: "", title: "", location: { href: "" } },
  localStorage: { getItem: (key) => stored.get(key) ?? null, setItem: (key, text) => stored.set(key, text) },
  navigator: {
    userAgent:
      "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
  },
};
browser.window = { ...browser, addEventListener: () => {}, location: browser.document.location };
for (const [name, value] of Object.entries(browser)) {
  Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
}

const sdk = require("@kameleoon/javascript-sdk");
const { serve } = require("./commands.cjs");

let client;
let sent = [];
let isRepeating = false;

function requester(baseUrl) {
  return {
    sendRequest({ url, parameters }) {
      // As text: a URL object would encode what the SDK left as it was.
      const target = url.replace(/^https:\/\/[^/]+/, baseUrl);
      const first = fetch(target, parameters);
      const answered = isRepeating ? first.then(() => fetch(target, parameters)) : first;
      isRepeating = false;
      sent.push({ url, method: parameters.method, body: parameters.body ?? null, answered });
      return answered;
    },
  };
}

/** `{"kind": "PageView", "of": [...]}` is a data object of the SDK. */
function typed(argument) {
  return argument !== null && typeof argument === "object" && argument.kind
    ? new sdk[argument.kind](...argument.of)
    : argument;
}

function plain(answer) {
  return answer?.data?.type ? answer.data : answer;
}

serve(async (call, given) => {
  if (call === "(new)") {
    const { siteCode, baseUrl } = given[0];
    client = new sdk.KameleoonClient({ siteCode, externals: { requester: requester(baseUrl) } });
    return null;
  }
  if (call === "(repeat)") {
    // The next request is sent twice, as after an answer that was lost.
    isRepeating = true;
    return null;
  }
  if (call === "(sent)") {
    // Everything sent since the last time, once it is answered: flush() returns before that.
    const taken = sent;
    sent = [];
    return Promise.all(
      taken.map(async ({ url, method, body, answered }) => ({ url, method, body, status: (await answered).status })),
    );
  }
  const answer = await client[call](...given.map(typed));
  return Array.isArray(answer) ? answer.map(plain) : plain(answer);
});
