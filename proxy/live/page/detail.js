// One exchange: what took its time, its thread, its headers, and what it carried.

import { PARTS, SYMBOLS, TRANSPORTS, bytes, clock, drawParts, duration, el, endOf, plural, shortThread } from "./words.js";

const MOST_OF_THREAD = 12;
// Of a socket's time axis, what its being open takes.
const OPEN_SHARE = 0.25;

/** Fill the panel. `rows` are those of the table, `onOpen` opens another one, `onClose` closes the panel. */
export function showDetail(panel, one, rows, onOpen, onClose) {
  // It is filled anew when something changed; what was unfolded stays so.
  const was = { top: panel.scrollTop, closed: new Set(), open: new Set(), of: panel.dataset.number };
  for (const section of panel.querySelectorAll("details")) was[section.open ? "open" : "closed"].add(section.dataset.name);
  const close = el("button", "close", "✕", [], { type: "button", "aria-label": "Close (Esc)", title: "Close (Esc)" });
  close.addEventListener("click", onClose);
  const status = one.status === null ? (one.broke_off ? "broke off" : one.is_over ? "no status" : "under way") : one.status;
  const panelParts = [
    el("div", "detail-head", null, [
      el("h2", "", `#${one.number} `, [el("span", "thin", `${TRANSPORTS[one.transport]} · ${status}`)]),
      close,
    ]),
    el("p", "url", `${one.method} ${one.transport === "tunnel" ? "" : "https://"}${one.host}${port(one)}${one.path}`),
    el("div", "verdict", null, [el("p", "headline", one.verdict.headline), el("p", "", one.verdict.meaning)]),
    ...one.notices.map(notice),
    // Of a socket the turns are what somebody waits for.
    ...(one.is_socket ? turns(one) : []),
    el("h3", "", one.is_socket && one.transport === "websocket" ? "Its handshake" : "Where the time went"),
    waterfall(one),
    ...(one.is_socket ? [] : turns(one)),
    ...thread(one, rows, onOpen),
    el("h3", "", "Facts"),
    facts(one),
    headers("Request headers", one.request_headers, was),
    headers("Response headers", one.response_headers, was),
    carried(one.carried, was),
  ];
  const focused = panel.contains(document.activeElement) ? document.activeElement : null;
  const unfolding = focused?.closest("details")?.dataset.name;
  panel.replaceChildren(...panelParts);
  if (focused?.classList.contains("close")) close.focus();
  else if (unfolding) [...panel.querySelectorAll("details")].find((one) => one.dataset.name === unfolding)?.firstElementChild.focus();
  panel.dataset.number = one.number;
  panel.scrollTop = was.of === String(one.number) ? was.top : 0;
}

const port = (one) => (one.port === 443 ? "" : `:${one.port}`);

function notice(one) {
  const tone = one.severity === "problem" ? "bad" : "warn";
  return el("div", `note ${tone}`, null, [
    el("p", "", null, [el("span", "symbol", SYMBOLS[tone], [], { "aria-hidden": "true" }), el("b", "", one.title), `: ${one.text}`]),
    el("p", "small", one.advice),
  ]);
}

function waterfall(one) {
  const from = Math.min(0, ...one.parts.map((part) => part[1]));
  const waits = one.parts.filter(([name]) => name !== "open");
  const isSocket = waits.length < one.parts.length;
  let until = Math.max(...(waits.length ? waits : one.parts).map((part) => endOf(one, part)));
  // The handshake is what is read here; in proportion to hours of an open socket it would not be seen.
  if (isSocket && waits.length) until = from + (until - from) / (1 - OPEN_SHARE);
  const scale = 100 / Math.max(until - from, 0.001);
  const lines = one.parts.map((part) => {
    const [name, start] = part;
    const end = Math.min(endOf(one, part), until);
    const bar = el("div", `bar ${name}${part[2] === null ? " running" : ""}`);
    bar.style.marginLeft = `${(start - from) * scale}%`;
    bar.style.width = `${(end - start) * scale}%`;
    const track = el("div", "lane", null, [bar]);
    if (name === "token" && from <= 100 && 100 <= until) {
      const mark = el("div", "mark-budget", null, [], { title: "the budget of 100 ms" });
      mark.style.left = `${(100 - from) * scale}%`;
      track.append(mark);
    }
    const length = duration(endOf(one, part) - start) + (part[2] === null ? " …" : "");
    return el("li", "", null, [
      el("span", "part", PARTS[name][0], [el("span", "small", PARTS[name][1])]),
      track,
      el("span", "number", length),
    ]);
  });
  return el("ol", "waterfall", null, lines, { "aria-label": "Parts of the exchange, in order" });
}

/** The other requests of its thread on one time axis: what a turn is made of. */
function thread(one, rows, onOpen) {
  if (!one.thread_id) return [];
  const all = [...rows.values()].filter((row) => row.thread_id === one.thread_id).sort((a, b) => a.started_at - b.started_at);
  if (all.length < 2) return [];
  const at = all.findIndex((row) => row.number === one.number);
  const first = Math.max(0, Math.min(at - MOST_OF_THREAD / 2, all.length - MOST_OF_THREAD));
  const shown = all.slice(first, first + MOST_OF_THREAD);
  const begin = (row) => row.started_at * 1000;
  const end = (row) => (row.is_over ? begin(row) + (row.duration_s ?? 0) * 1000 : Date.now());
  const from = Math.min(...shown.map(begin));
  const scale = 100 / Math.max(1, Math.max(...shown.map(end)) - from);
  const lines = shown.map((row) => {
    const bar = el("div", "bar stack");
    drawParts(bar, row);
    bar.style.marginLeft = `${(begin(row) - from) * scale}%`;
    bar.style.width = `${(end(row) - begin(row)) * scale}%`;
    const status = row.status ?? (row.broke_off ? "broke off" : "…");
    const open = el("button", "link", `#${row.number} ${TRANSPORTS[row.transport]} ${status}`, [], { type: "button" });
    open.disabled = row.number === one.number;
    open.addEventListener("click", () => onOpen(row.number));
    return el("li", row.number === one.number ? "this" : "", null, [
      el("span", "part", null, [open]),
      el("div", "lane", null, [bar]),
      el("span", "number", duration(end(row) - begin(row))),
    ]);
  });
  const parts = [
    el("h3", "", `Its thread ${shortThread(one.thread_id)} `, [el("span", "thin", plural(all.length, "request"))]),
    el("ol", "waterfall thread", null, lines, { "aria-label": "Requests of this thread on one time axis" }),
  ];
  const idle = gaps(shown.map((row) => [begin(row), end(row)]));
  if (idle >= 1000 && !shown.some((row) => row.is_socket))
    parts.push(el("p", "small", `Between these requests ${duration(idle)} passed in the agent itself: tools, retries it waited for, or you.`));
  return parts;
}

function gaps(spans) {
  let until = spans[0][1];
  let sum = 0;
  for (const [start, end] of spans) {
    sum += Math.max(0, start - until);
    until = Math.max(until, end);
  }
  return sum;
}

function facts(one) {
  const pairs = [
    ["Stamp", [el("span", `tag ${one.tone}`, null, [el("span", "symbol", SYMBOLS[one.tone], [], { "aria-hidden": "true" }), one.stamp_word])]],
    ["", [one.stamp_sentence]],
    ["Token", one.token_bytes ? [`${one.token_bytes} bytes (never kept)`] : null],
    ["Route", [one.route ?? "none: not in scope"]],
    ["Thread", one.thread_id ? [one.thread_id] : null],
    ["Began", [`${clock(one.started_at)} (${new Date(one.started_at * 1000).toISOString()})`]],
    ["Bodies", [`${bytes(one.request_bytes)} up, ${bytes(one.response_bytes)} down`]],
    ["Protocol", one.http_version ? [one.http_version] : null],
    ["Its end", one.error ? [one.error] : null],
  ];
  return el("dl", "facts", null, pairs.filter(([, value]) => value).flatMap(([name, value]) => [el("dt", "", name), el("dd", "", null, value)]));
}

function section(title, name, was, content) {
  const details = el("details", "", null, [el("summary", "", title), ...content]);
  details.dataset.name = name;
  details.open = !was.closed.has(name);
  return details;
}

function headers(title, fields, was) {
  const lines = fields.map(([name, value]) => {
    const redacted = value.includes("[redacted ") ? "redacted" : "";
    return el("tr", "", null, [el("th", "", name, [], { scope: "row" }), el("td", redacted, value)]);
  });
  const content = fields.length ? el("table", "headers", null, [el("tbody", "", null, lines)]) : el("p", "small", "None are known.");
  return section(`${title} (${fields.length})`, title, was, [content]);
}

/** The turns of a socket, or of an answer: each from its question on, in proportion to the longest. */
function turns(one) {
  // What was decoded says more than when something came.
  const isDecoded = one.carried.turns.length > 0;
  const all = isDecoded ? one.carried.turns : one.turns;
  if (!all.length) return [];
  const length = (turn) => turn.parts.reduce((sum, part) => sum + endOf(one, part) - part[1], 0);
  const longest = Math.max(...all.map(length), 0.001);
  const lines = all.map((turn) => {
    const bar = el("div", "bar stack");
    bar.style.width = `${(100 * length(turn)) / longest}%`;
    drawParts(bar, { ...one, parts: turn.parts });
    const isOver = turn.parts.at(-1)[2] !== null;
    const label = el("span", "part", `Turn ${turn.number} `, [el("span", "small", `at ${duration(turn.parts[0][1])}`)]);
    return el("li", "", null, [
      label,
      el("div", "", null, [el("div", "lane", null, [bar]), el("span", "small", turn.said)]),
      el("span", "number", duration(length(turn)) + (isOver ? "" : " …")),
    ]);
  });
  return [
    el("h3", "", "Its turns ", [el("span", "thin", isDecoded ? "until the first output, and while the model wrote" : "while upstream was silent, and while it answered")]),
    el("ol", "waterfall thread", null, lines, { "aria-label": "Turns that it carried" }),
  ];
}

/** What it carried, if that was captured. */
function carried(content, was) {
  const parts = [];
  if (content.summary.length) {
    const pairs = content.summary.flatMap(([name, value]) => [el("dt", "", name), el("dd", "", value)]);
    parts.push(el("dl", "facts", null, pairs));
  }
  if (content.lines.length) parts.push(el("ol", "events", null, content.lines.map((line) => event(line, was))));
  if (content.note) parts.push(el("p", "small", content.note));
  const count = content.lines.reduce((sum, line) => sum + line.count, 0);
  return section(`Carried (${plural(count, "event")})`, "carried", was, parts);
}

function event(line, was) {
  const many = line.count > 1 ? ` × ${line.count}` : "";
  const until = line.count > 1 ? ` until ${duration(line.until_ms)}` : "";
  const head = [
    el("span", "number", duration(line.at_ms), [], { title: `${line.at_ms} ms after the request head${until}` }),
    el("span", "direction", line.from_client ? "↑" : "↓", [], { title: line.from_client ? "from the client" : "from upstream" }),
    el("code", "", line.name + many),
    el("span", "small size", bytes(line.size)),
  ];
  if (!line.text) return el("li", "", null, [el("div", "event-head", null, head)]);
  const details = el("details", "", null, [el("summary", "event-head", null, head), el("pre", "", line.text)]);
  details.dataset.name = `event ${line.at_ms} ${line.name}`;
  details.open = was.open.has(details.dataset.name);
  return el("li", "", null, [details]);
}
