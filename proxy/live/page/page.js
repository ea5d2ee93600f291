// Puts it together: what comes is shown, or kept back while the page is paused; keys and buttons.

import { showDetail } from "./detail.js";
import { ask, follow, takeToken } from "./stream.js";
import { showSummary } from "./summary.js";
import { Table } from "./table.js";
import { SYMBOLS, el, setText } from "./words.js";

const at = (id) => document.getElementById(id);
const table = new Table(at("rows"), at("empty"), at("more"), open);

const state = {
  run: null,
  budget: 100,
  coverage: null,
  forgotten: 0,
  notices: new Map(), // title -> all of that sort, the newest last
  allNotices: false, // with their texts, and not only the newest
  paused: false,
  kept: null, // what came while paused: a snapshot, and then changes by number
  opened: null,
  connection: "connecting",
};

const SHOWN_NOTICES = 3;
const MOST_NOTICES = 200;
const REFRESH_MS = 2000;
const TOTALS_MS = 150;

// What comes

function receive(message) {
  if (state.paused) return keep(message);
  show(message);
}

function show(message) {
  const isSnapshot = message.kind === "snapshot";
  if (isSnapshot) {
    const before = { run: state.run, selected: table.selected, opened: state.opened };
    table.clear();
    state.notices.clear();
    state.budget = message.budget_ms;
    if (before.run !== null && before.run !== message.run) {
      closeDetail();
      flash(`Another run began: ${message.run || "it has no name"}. This page shows it from now on.`);
    }
    state.run = message.run;
    setText("run", message.run);
    table.show(message.exchanges, false);
    if (before.run === message.run && table.rows.has(before.selected)) table.select(before.selected, false);
  } else {
    table.show(message.exchanges, message.kind === "changes");
  }
  for (const notice of message.notices) {
    const sort = state.notices.get(notice.title) ?? [];
    state.notices.delete(notice.title); // the newest sort comes last
    state.notices.set(notice.title, [...sort, notice].slice(-MOST_NOTICES));
  }
  state.coverage = message.coverage;
  state.forgotten = message.forgotten;
  if (isSnapshot) showTotals();
  else totalsDue ||= setTimeout(showTotals, TOTALS_MS);
  if (isSnapshot || message.notices.length) showNotices();
  if (!isSnapshot) tellNotices(message.notices);
  if (state.opened !== null && message.exchanges.some((row) => row.number === state.opened)) refreshDetail();
}

// To sum up two thousand requests takes longer than to show one more.
let totalsDue = 0;

function showTotals() {
  clearTimeout(totalsDue);
  totalsDue = 0;
  showSummary([...table.rows.values()], state.coverage, state.forgotten, state.budget);
}

function keep(message) {
  if (message.kind === "snapshot" || !state.kept) {
    state.kept = { ...message, exchanges: new Map(), notices: [] };
  }
  const kept = state.kept;
  for (const row of message.exchanges) {
    kept.exchanges.delete(row.number);
    kept.exchanges.set(row.number, row);
  }
  for (const number of kept.exchanges.keys()) {
    if (kept.exchanges.size <= 2000) break;
    kept.exchanges.delete(number);
  }
  kept.notices = [...kept.notices, ...message.notices].slice(-MOST_NOTICES);
  kept.coverage = message.coverage;
  kept.forgotten = message.forgotten;
  showPause();
}

function setPaused(paused) {
  state.paused = paused;
  if (!paused && state.kept) {
    const kept = state.kept;
    state.kept = null;
    show({ ...kept, exchanges: [...kept.exchanges.values()] });
  }
  showPause();
}

// Notices

function showNotices() {
  const sorts = [...state.notices.values()].reverse();
  const full = isNarrow() ? 1 : SHOWN_NOTICES;
  at("notices").hidden = sorts.length === 0;
  at("notices-count").textContent = sorts.reduce((sum, sort) => sum + sort.length, 0);
  at("notices-list").replaceChildren(...sorts.map((sort, index) => noticeLine(sort, state.allNotices || index < full)));
  at("notices-list").classList.toggle("all", state.allNotices);
  const more = at("notices-more");
  more.hidden = sorts.length <= full;
  more.textContent = state.allNotices ? "Show less" : "Show all texts";
  more.setAttribute("aria-expanded", String(state.allNotices));
}

/** For screen readers: each notice once, where the list is made anew. */
function tellNotices(notices) {
  for (const { title, text, advice } of notices.slice(-SHOWN_NOTICES)) at("told").append(el("p", "", `${title}: ${text} ${advice}`));
  while (at("told").childElementCount > SHOWN_NOTICES) at("told").firstElementChild.remove();
}

/** The last of its sort; the texts of older sorts are left out. */
function noticeLine(sort, withText) {
  const last = sort.at(-1);
  const tone = sort.some((notice) => notice.severity === "problem") ? "bad" : "warn";
  const go = el("button", "link", `#${last.number}`, [], { type: "button", "aria-label": `Open request ${last.number}` });
  go.addEventListener("click", () => open(last.number));
  const title = el("p", "", null, [el("span", "symbol", SYMBOLS[tone], [], { "aria-hidden": "true" }), el("b", "", last.title)]);
  if (sort.length > 1) title.append(" ", el("span", "count", `× ${sort.length}`));
  title.append(" ", go);
  const texts = [el("p", "text", last.text), el("p", "text small", last.advice)];
  const line = el("li", `note ${tone}${withText ? "" : " brief"}`, null, [title, ...texts]);
  line.title = withText ? "" : `${last.text} ${last.advice}`;
  return line;
}

// One exchange

let asking = null;
let again = 0;

function open(number) {
  if (!table.rows.has(number)) return flash(`Request ${number} is not shown any more.`);
  state.opened = number;
  table.select(number, false);
  document.body.classList.add("with-detail");
  refreshDetail(0);
}

function refreshDetail(delayMs = 150) {
  asking?.abort();
  clearTimeout(again);
  const controller = (asking = new AbortController());
  const number = state.opened;
  setTimeout(async () => {
    if (controller.signal.aborted) return;
    if (isReading(at("detail"))) return refreshDetail(REFRESH_MS);
    const began = performance.now();
    try {
      const response = await ask(`/api/exchanges/${number}`, controller.signal);
      const one = await response.json();
      if (controller.signal.aborted) return;
      const isNew = at("detail").hidden;
      at("detail").hidden = false;
      showDetail(at("detail"), one, table.rows, open, closeDetail);
      at("detail").setAttribute("aria-label", `Exchange ${number}`);
      if (isNew && isNarrow()) at("detail").querySelector(".close").focus();
      if (isNew) table.lines.get(number)?.scrollIntoView({ block: "nearest" });
      // What goes on inside of an open one is no news of the stream. To read it takes countersign its time.
      if (!one.is_over) again = setTimeout(refreshDetail, Math.max(REFRESH_MS, 10 * (performance.now() - began)), 0);
    } catch (error) {
      if (error.name !== "AbortError") flash(`Request ${number} cannot be shown: ${error.message}`);
    }
  }, delayMs);
}

/** Whether a text in it is selected, which a new one would take away. */
function isReading(element) {
  const selection = getSelection();
  return !selection.isCollapsed && element.dataset.number === String(state.opened) && element.contains(selection.anchorNode);
}

function closeDetail() {
  if (state.opened === null) return;
  const number = state.opened;
  asking?.abort();
  clearTimeout(again);
  state.opened = null;
  at("detail").hidden = true;
  at("detail").replaceChildren();
  document.body.classList.remove("with-detail");
  table.select(number);
}

const isNarrow = () => matchMedia("(max-width: 900px)").matches;

// The connection

const STATES = {
  connecting: ["idle", "connecting", ""],
  live: ["good", "live", ""],
  lost: ["bad", "no connection", "The connection to countersign is lost; trying again. If it was started again, open the address that it printed."],
  stopped: ["bad", "stopped", "countersign has stopped; this page shows what came until then, and goes on when it is back."],
  full: ["bad", "too many pages", "As many pages as can follow this run; close one of them. Trying again."],
  refused: ["bad", "no access", "This page needs the token of a running countersign: open the whole address that it printed, with what stands behind the #."],
};

function setConnection(name) {
  // That it said good-bye says more than that it is gone.
  if (name === "lost" && state.connection === "stopped") return;
  if (state.connection === name) return;
  const before = state.connection;
  state.connection = name;
  const [tone, , text] = STATES[name];
  if (text) banner(text, tone);
  else if (before !== "connecting") flash("Connected again.", "good");
  showPause();
}

function showPause() {
  const button = at("pause");
  button.setAttribute("aria-pressed", String(state.paused));
  button.textContent = state.paused ? "Go on" : "Pause";
  const [tone, word] = STATES[state.connection];
  const isPaused = state.paused && state.connection === "live";
  const pill = at("connection");
  pill.className = `pill ${isPaused ? "warn" : tone}`;
  const count = state.kept ? state.kept.exchanges.size : 0;
  setText("connection", isPaused ? `paused · ${count} new` : word);
}

let flashing = 0;

function banner(text, tone) {
  clearTimeout(flashing);
  const element = at("banner");
  element.className = `banner ${tone}`;
  element.textContent = text;
  element.hidden = false;
}

/** A banner that goes away by itself. */
function flash(text, tone = "idle") {
  banner(text, tone);
  flashing = setTimeout(() => {
    const [stateTone, , stateText] = STATES[state.connection];
    if (stateText) banner(stateText, stateTone);
    else at("banner").hidden = true;
  }, 6000);
}

// Buttons and keys

function toggle(id) {
  const pressed = at(id).getAttribute("aria-pressed") !== "true";
  at(id).setAttribute("aria-pressed", String(pressed));
  table.filter[id] = pressed;
  table.draw();
}

function setFilter(text) {
  at("filter").value = text;
  table.filter.words = text.toLowerCase().split(/\s+/).filter(Boolean);
  table.draw();
}

async function downloadHar() {
  at("har").disabled = true;
  try {
    const response = await ask("/api/har");
    const url = URL.createObjectURL(await response.blob());
    const link = el("a", "", null, [], { href: url, download: `countersign-${state.run || "live"}.har` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  } catch (error) {
    flash(`The HAR cannot be made: ${error.message}`, "bad");
  } finally {
    at("har").disabled = false;
  }
}

const KEYS = {
  j: () => step(1),
  ArrowDown: () => step(1),
  k: () => step(-1),
  ArrowUp: () => step(-1),
  Home: () => step(-Infinity),
  End: () => step(Infinity),
  Enter: () => table.selected !== null && open(table.selected),
  Escape: escape,
  "/": () => at("filter").focus(),
  p: () => setPaused(!state.paused),
  s: () => toggle("scoped"),
  x: () => toggle("problems"),
  "?": () => at("help").showModal(),
};

function step(by) {
  table.move(by);
  if (state.opened !== null && table.selected !== null && !isNarrow()) open(table.selected);
}

function escape() {
  if (state.opened !== null) return closeDetail();
  setFilter("");
  for (const id of ["scoped", "problems"]) if (at(id).getAttribute("aria-pressed") === "true") toggle(id);
  setTransport("");
}

function setTransport(transport) {
  for (const chip of at("transports").children) chip.setAttribute("aria-pressed", String(chip.dataset.transport === transport));
  table.filter.transport = transport;
  table.draw();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || at("help").open) return;
  const inFilter = event.target === at("filter");
  if (inFilter) {
    if (event.key === "Escape") {
      setFilter("");
      at("filter").blur();
    } else if (event.key === "Enter" || event.key === "ArrowDown") {
      event.preventDefault();
      at("filter").blur();
      step(0);
    }
    return;
  }
  // On a button or a summary Enter is its own; in the panel the arrows scroll it.
  if (event.key === "Enter" && event.target.closest("button, summary, a")) return;
  if (/^(Arrow|Home|End)/.test(event.key) && event.target.closest("#detail")) return;
  const action = KEYS[event.key];
  if (!action) return;
  event.preventDefault();
  action();
});

at("filter").addEventListener("input", () => setFilter(at("filter").value));
at("transports").addEventListener("click", (event) => event.target.closest("button") && setTransport(event.target.dataset.transport));
for (const id of ["scoped", "problems"]) at(id).addEventListener("click", () => toggle(id));
at("pause").addEventListener("click", () => setPaused(!state.paused));
at("har").addEventListener("click", downloadHar);
at("help-open").addEventListener("click", () => at("help").showModal());
at("slow").addEventListener("click", () => open(Number(at("slow").dataset.number)));
at("notices-more").addEventListener("click", () => {
  state.allNotices = !state.allNotices;
  showNotices();
});

setInterval(() => {
  if (state.paused || state.connection !== "live") return;
  table.tick();
  if (state.coverage) showTotals();
}, 500);

// Another address in the same tab: countersign was started again.
addEventListener("hashchange", () => location.hash.startsWith("#token=") && location.reload());

takeToken();
table.draw();
showPause();
follow(receive, setConnection);
