// The table: one line for each exchange, the newest first.

import { SYMBOLS, TRANSPORTS, bytes, clock, drawStack, duration, el, plural, slowest } from "./words.js";

const MOST_ROWS = 2000;
// What is drawn at first, and what each "more" adds: to lay out thousands of lines takes a browser seconds.
const DRAWN = 300;
export const SLOW_MS = 5000;

export class Table {
  /** `onOpen` is called with the number of the exchange that is to be opened. */
  constructor(body, empty, more, onOpen) {
    this.body = body;
    this.empty = empty;
    this.more = more;
    this.rows = new Map(); // number -> what we were told last
    this.order = []; // their numbers, the newest first
    this.lines = new Map(); // number -> the <tr> of those that are drawn
    this.texts = new Map(); // number -> what the filter looks at
    this.selected = null;
    this.drawn = DRAWN;
    this.filter = { words: [], scoped: false, problems: false, transport: "" };
    body.addEventListener("click", (event) => {
      const line = event.target.closest("tr");
      if (line) onOpen(Number(line.dataset.number));
    });
    body.addEventListener("focusin", (event) => {
      const line = event.target.closest("tr");
      if (line) this.select(Number(line.dataset.number), false);
    });
    more.addEventListener("click", () => {
      this.drawn += DRAWN;
      this.draw();
    });
  }

  clear() {
    for (const map of [this.rows, this.lines, this.texts]) map.clear();
    this.order = [];
    this.body.replaceChildren();
    this.selected = null;
    this.drawn = DRAWN;
  }

  /** Show these exchanges in their last state. */
  show(rows, isNew) {
    for (const row of rows) {
      if (!this.rows.has(row.number)) this.order.push(row.number);
      this.rows.set(row.number, row);
      this.texts.delete(row.number);
      const line = this.lines.get(row.number);
      if (line) fill(line, row);
    }
    this.order.sort((one, other) => other - one);
    for (const number of this.order.splice(MOST_ROWS)) {
      this.rows.delete(number);
      this.texts.delete(number);
    }
    this.draw(isNew);
  }

  fits(row) {
    const { words, scoped, problems, transport } = this.filter;
    if ((scoped && !row.scoped) || (problems && !row.severity) || (transport && row.transport !== transport)) return false;
    if (words.length === 0) return true;
    const text = this.texts.get(row.number) ?? searchable(row);
    this.texts.set(row.number, text);
    return words.every((word) => (word.length > 1 && word[0] === "-" ? !text.includes(word.slice(1)) : text.includes(word)));
  }

  /** Bring the lines in accord with the rows and the filter. */
  draw(isNew = false) {
    const fitting = this.order.filter((number) => this.fits(this.rows.get(number)));
    const wanted = new Set(fitting.slice(0, this.drawn));
    for (const [number, line] of this.lines) {
      if (wanted.has(number)) continue;
      line.remove();
      this.lines.delete(number);
      if (this.selected === number) this.selected = null;
    }
    let next = this.body.firstElementChild;
    for (const number of wanted) {
      let line = this.lines.get(number);
      if (line && line === next) {
        next = next.nextElementSibling;
        continue;
      }
      if (!line) {
        line = el("tr", isNew ? "new" : "", null, [], { role: "row", tabindex: "-1", "aria-selected": "false" });
        line.dataset.number = number;
        fill(line, this.rows.get(number));
        this.lines.set(number, line);
      }
      this.body.insertBefore(line, next);
    }
    this.tell(fitting.length);
  }

  get visible() {
    return [...this.body.children];
  }

  /** Say how many fit the filter, and what to do where none do. */
  tell(fitting) {
    const all = this.rows.size;
    document.getElementById("shown").textContent = fitting === all ? plural(all, "request") : `${fitting} of ${plural(all, "request")}`;
    const rest = fitting - this.lines.size;
    this.more.hidden = rest <= 0;
    this.more.textContent = `${plural(rest, "older one")} not drawn; show more`;
    this.empty.hidden = fitting > 0;
    this.empty.replaceChildren(
      ...(all > 0
        ? [el("p", "", "Nothing matches the filter."), el("p", "small", "Esc clears it.")]
        : [
            el("p", "", "No request has come yet."),
            el("p", "small", "It shows here as soon as an agent sends one, for example by"),
            el("code", "", "countersign run -- codex exec 'say hello'"),
          ]),
    );
    // One line can be reached by Tab: the selected one, else the first.
    this.reach(this.lines.get(this.selected) ?? this.body.firstElementChild);
  }

  reach(line) {
    if (line === this.reachable) return;
    this.reachable?.setAttribute("tabindex", "-1");
    line?.setAttribute("tabindex", "0");
    this.reachable = line;
  }

  select(number, withFocus = true) {
    if (this.selected !== number) {
      this.lines.get(this.selected)?.setAttribute("aria-selected", "false");
      this.selected = number;
    }
    const line = this.lines.get(number);
    if (!line) return;
    line.setAttribute("aria-selected", "true");
    this.reach(line);
    if (withFocus) {
      line.focus({ preventScroll: true });
      line.scrollIntoView({ block: "nearest" });
    }
  }

  /** Select the line that is so many below the selected one, or the first or last of all. */
  move(by) {
    const shown = this.visible;
    if (shown.length === 0) return;
    const at = shown.indexOf(this.lines.get(this.selected));
    const to = at < 0 ? (by === Infinity ? shown.length - 1 : 0) : Math.max(0, Math.min(shown.length - 1, at + by));
    this.select(Number(shown[to].dataset.number));
  }

  /** Let the clocks of what is under way go on. */
  tick() {
    for (const [number, line] of this.lines) {
      const row = this.rows.get(number);
      if (!row.is_over) times(line, row);
    }
  }
}

function searchable({ number, method, transport, host, path, route, status, stamp_word, thread_id, error }) {
  return [`#${number}`, method, TRANSPORTS[transport], host + path, route, status, stamp_word, thread_id, error].join(" ").toLowerCase();
}

function fill(line, row) {
  line.dataset.severity = row.severity ?? "";
  line.classList.toggle("over", row.is_over);
  if (!line.firstChild) line.append(...cells());
  const cell = (name) => line.querySelector(`.c-${name}`);
  const text = (name, value) => (cell(name).textContent = value);
  text("time", clock(row.started_at));
  cell("time").title = `#${row.number}, ${new Date(row.started_at * 1000).toISOString()}`;
  text("route", row.route ?? "–");
  text("transport", TRANSPORTS[row.transport]);
  const [path, host] = cell("where").children;
  path.firstChild.textContent = row.path || `${row.host}:${row.port}`;
  host.textContent = row.path ? row.host : "";
  cell("where").title = `${row.method} ${row.host}:${row.port}${row.path}`;
  const stamp = cell("stamp").firstChild;
  stamp.className = `tag ${row.tone}`;
  stamp.replaceChildren(el("span", "symbol", SYMBOLS[row.tone], [], { "aria-hidden": "true" }), row.stamp_word);
  status(cell("status"), row);
  token(cell("token"), row);
  text("first", row.first_byte_s === null ? (row.is_over ? "–" : "…") : duration(row.first_byte_s * 1000));
  const [up, down] = cell("bytes").children;
  up.textContent = `↑ ${bytes(row.request_bytes)}`;
  down.textContent = `↓ ${bytes(row.response_bytes)}`;
  times(line, row);
}

function cells() {
  const cell = (name, ...children) => el("td", `c-${name}`, null, children, { role: "gridcell" });
  return [
    cell("time"),
    cell("route"),
    cell("transport"),
    cell("where", el("span", "path", null, [el("bdi")]), el("span", "host")),
    cell("stamp", el("span", "tag")),
    cell("status"),
    cell("token", el("span", "number"), el("div", "track budget", null, [el("div")])),
    cell("first"),
    cell("duration", el("span", "number"), el("div", "stack")),
    cell("bytes", el("span"), el("span")),
  ];
}

function status(cell, row) {
  const code = row.status;
  let tone = "idle";
  if (row.broke_off) tone = "bad";
  else if (row.scoped && code !== null) tone = code >= 500 ? "bad" : code >= 400 ? "warn" : "good";
  const unknown = row.broke_off ? "broke off" : row.transport === "tunnel" || row.is_over ? "–" : "…";
  const parts = [el("span", `status ${tone}`, code === null ? unknown : String(code))];
  if (row.broke_off && code !== null) parts.push(el("span", "broken", "broke off"));
  cell.replaceChildren(...parts);
  cell.title = row.error ?? "";
}

function token(cell, row) {
  const [number, track] = cell.children;
  const asked = row.waited_s !== null;
  track.hidden = !asked;
  number.textContent = asked ? duration(row.waited_s * 1000) : "–";
  number.classList.toggle("late", asked && row.waited_s > 0.1);
  if (asked) drawBudget(track, row.waited_s * 1000, 100);
}

/** A bar in a track that is half as long again as the budget, which is marked. */
export function drawBudget(track, ms, budget) {
  const bar = track.firstElementChild;
  bar.style.width = `${Math.min(100, (100 * ms) / (1.5 * budget))}%`;
  bar.className = ms > budget ? "bad" : ms > 0.8 * budget ? "warn" : "good";
}

function times(line, row) {
  const [number, stack] = line.querySelector(".c-duration").children;
  const elapsed = row.is_over ? (row.duration_s ?? 0) * 1000 : Math.max(0, Date.now() - row.started_at * 1000);
  const most = slowest(row);
  const tries = row.parts.find(([name]) => name === "tries");
  let [text, title] = [duration(elapsed), ""];
  if (most.turn !== null) {
    text = `turn ${duration(most.ms)}`;
    title = `turn ${most.turn}, the slowest on this socket, which is open for ${duration(elapsed)}`;
  } else if (row.is_socket) {
    // A socket's time is no delay: what its handshake took stands under First byte.
    [text, title] = [`⇄ ${duration(elapsed)}`, "open for so long; that is no delay"];
  } else if (tries) {
    text = duration(elapsed - tries[1]);
    title = `${duration(-tries[1])} of failed tries before it, and ${duration(elapsed)} of its own`;
  }
  number.title = title;
  number.textContent = row.is_over || most.turn !== null ? text : `${text} …`;
  number.classList.toggle("running", !row.is_over && most.turn === null);
  if (row.is_socket && most.turn === null) stack.replaceChildren(el("div", "open whole"));
  else drawStack(stack, most);
  line.classList.toggle("slow", most.ms >= SLOW_MS);
}
