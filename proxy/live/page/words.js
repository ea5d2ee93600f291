// Elements and words. Whatever comes from the traffic is set as text: there is no way from here to markup.

/** An element with a class, a text and children; `attributes` are set as they are. */
export function el(tag, className = "", text = null, children = [], attributes = {}) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== null) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Set the text of the element with this id, but only where it changes: a live region would be read out again. */
export function setText(id, text) {
  const element = document.getElementById(id);
  if (element.textContent !== text) element.textContent = text;
}

/** Milliseconds for people: "7.2 ms", "240 ms", "2.31 s", "1 min 5 s". */
export function duration(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 999.5) return `${ms.toFixed(0)} ms`;
  if (ms < 59950) return `${(ms / 1000).toFixed(ms < 9995 ? 2 : 1)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

export function bytes(count) {
  if (count < 1000) return `${count} B`;
  if (count < 999500) return `${(count / 1000).toFixed(count < 9995 ? 1 : 0)} kB`;
  if (count < 999500000) return `${(count / 1e6).toFixed(count < 9995000 ? 1 : 0)} MB`;
  return `${(count / 1e9).toFixed(1)} GB`;
}

export function clock(unixSeconds) {
  const at = new Date(unixSeconds * 1000);
  const two = (number) => String(number).padStart(2, "0");
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

/** The end of a thread's id; ids of one session begin alike. */
export const shortThread = (id) => (id.length <= 12 ? id : `…${id.slice(-8)}`);

export const plural = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;

export const SYMBOLS = { good: "✓", bad: "✕", warn: "!", idle: "·" };

export const TRANSPORTS = { websocket: "WebSocket", post: "POST", http: "HTTP", tunnel: "Tunnel" };

/** What each part of a waterfall is: a name, what happens in it, and what somebody does who waits for it. */
export const PARTS = {
  tries: ["Failed tries", "what the agent tried before, in vain", "failed tries before it"],
  connect: ["Connect", "name, TCP and TLS to upstream, before the request", "connecting to upstream"],
  token: ["Token wait", "the desktop makes the token", "waiting for the token"],
  send: ["Request sent", "head and body on their way up", "sending the request"],
  wait: ["Wait for first byte", "upstream has it and has not begun to answer", "waiting for upstream"],
  receive: ["Receive", "the answer, until its end", "receiving the answer"],
  open: ["Open", "the connection stays open; no delay", "open"],
};

/** When a part ends, in ms from the request head; what is under way ends now. */
export function endOf(row, part) {
  return part[2] ?? Math.max(part[1], Date.now() - row.started_at * 1000);
}

/** The parts that somebody waits for, as [name, ms]: a socket that stays open is none. */
function waits(row) {
  return row.parts
    .filter(([name]) => name !== "open")
    .map((part) => [part[0], Math.max(0, endOf(row, part) - part[1])]);
}

/** How long it took, in ms: for a socket its handshake, for a tunnel nothing. */
const waited = (row) => waits(row).reduce((sum, [, ms]) => sum + ms, 0);

/** What somebody waited for: the slowest turn of a socket, else the exchange; with the parts and the ms of it. */
export function slowest(row) {
  const own = { row, turn: null, parts: waits(row), ms: waited(row) };
  return row.turns
    .map((turn) => {
      const parts = waits({ ...row, parts: turn.parts });
      return { row, turn: turn.number, parts, ms: parts.reduce((sum, [, ms]) => sum + ms, 0) };
    })
    .reduce((most, one) => (one.ms > most.ms ? one : most), own);
}

/** A bar of what took the time, in proportion, put into `track`. */
export function drawStack(track, { parts, ms }) {
  fill(track, ms > 0 ? parts : [["open", 1]], ms || 1);
}

/** The same with the time that a socket is open; what was before the request is left out. */
export function drawParts(track, row) {
  const parts = row.parts.filter((part) => part[1] >= 0).map((part) => [part[0], Math.max(0, endOf(row, part) - part[1])]);
  fill(track, parts, parts.reduce((sum, [, ms]) => sum + ms, 0));
}

function fill(track, parts, total) {
  const pieces = parts.filter(([, ms]) => total > 0 && ms / total >= 0.005);
  track.replaceChildren(
    ...pieces.map(([name, ms]) => {
      const piece = el("div", name);
      piece.style.width = `${(100 * ms) / total}%`;
      return piece;
    }),
  );
}
