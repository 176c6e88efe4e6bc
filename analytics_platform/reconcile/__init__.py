"""Why vendors disagree: what SQL says badly, and what people look at."""
