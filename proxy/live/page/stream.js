// The connection to countersign: the token, what is asked with it, and the stream of news.

const TOKEN = "countersign-live-token";
const PATIENCE_MS = 16000; // countersign says something at least every 5 s
const RETRY_MS = [300, 600, 1200, 2500, 5000];

/** Take the token out of the address, where others could see it, and keep it for this tab. */
export function takeToken() {
  const given = /^#token=([A-Za-z0-9_-]+)$/.exec(location.hash);
  if (given) {
    sessionStorage.setItem(TOKEN, given[1]);
    history.replaceState(null, "", location.pathname);
  }
  return sessionStorage.getItem(TOKEN);
}

/** Ask for something under /api; throws unless the answer is a good one. */
export async function ask(path, signal) {
  const response = await fetch(path, {
    headers: { Authorization: `Bearer ${sessionStorage.getItem(TOKEN) ?? ""}` },
    cache: "no-store",
    credentials: "omit",
    redirect: "error",
    signal,
  });
  if (!response.ok) {
    const error = new Error((await response.text()).trim().replace(/^countersign live: /, ""));
    error.status = response.status;
    throw error;
  }
  return response;
}

/** Until somebody sees the page. Browsers have six connections to a host, and each page that follows takes one. */
async function seen() {
  while (document.hidden) await new Promise((resolve) => addEventListener("visibilitychange", resolve, { once: true }));
}

/**
 * Follow for ever, while the page is seen. `onMessage` gets each message, `onState` one of "live", "lost" (we try
 * again), "stopped" (the same, and countersign said good-bye), "full" (the same, and too many pages follow) and
 * "refused" (the token is not the right one; we do not try again).
 */
export async function follow(onMessage, onState) {
  for (let failures = 0; ; failures++) {
    let state = "lost";
    await seen();
    try {
      await read((message) => {
        failures = 0;
        if (message.kind === "bye") state = "stopped";
        else {
          onState("live");
          if (message.kind !== "alive") onMessage(message);
        }
      });
    } catch (error) {
      if (error.status === 401) return onState("refused");
      if (error.status === 503) state = "full";
    }
    if (document.hidden) continue; // it was let go
    onState(state);
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS[Math.min(failures, RETRY_MS.length - 1)]));
  }
}

async function read(onMessage) {
  const controller = new AbortController();
  let timer = setTimeout(() => controller.abort(), PATIENCE_MS);
  addEventListener("visibilitychange", () => document.hidden && controller.abort(), { signal: controller.signal });
  try {
    const response = await ask("/api/stream", controller.signal);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = [];
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(() => controller.abort(), PATIENCE_MS);
      const lines = value.split("\n");
      while (lines.length > 1) {
        rest.push(lines.shift());
        const line = rest.join("");
        rest = [];
        onMessage(JSON.parse(line));
      }
      rest.push(lines[0]);
    }
  } finally {
    clearTimeout(timer);
    controller.abort();
  }
}
