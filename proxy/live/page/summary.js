// The four tiles: coverage, token wait, the slowest request, what is under way.

import { SLOW_MS, drawBudget } from "./table.js";
import { PARTS, SYMBOLS, drawStack, duration, plural, setText, slowest } from "./words.js";

const at = (id) => document.getElementById(id);

/** What all exchanges come to. `rows` are those of the page, `coverage` is of all that there were. */
export function showSummary(rows, coverage, forgotten, budget) {
  const { scoped, attested } = coverage;
  const tone = scoped === 0 ? "idle" : coverage.complete ? "good" : "bad";
  at("coverage-tile").dataset.tone = tone;
  setText("coverage", scoped ? `${attested} of ${scoped} scoped requests stamped` : "No scoped request yet");
  at("coverage").dataset.symbol = scoped ? SYMBOLS[tone] : "";
  at("coverage-bar").style.width = scoped ? `${(100 * attested) / scoped}%` : "0";
  const rest = [plural(coverage.tunnels, "tunnel"), `${coverage.out_of_scope} out of scope`];
  if (coverage.refused) rest.push(`${coverage.refused} refused`);
  if (forgotten) rest.push(`${plural(forgotten, "older one")} no longer shown`);
  setText("coverage-rest", rest.join(" · "));

  const tokens = rows.filter((row) => row.waited_s !== null).map((row) => row.waited_s * 1000).sort((a, b) => a - b);
  if (tokens.length) {
    const [median, worst] = [tokens[Math.floor(tokens.length / 2)], tokens.at(-1)];
    const late = tokens.filter((ms) => ms > budget).length;
    at("token-tile").dataset.tone = late ? "bad" : "good";
    setText("token-figure", `up to ${duration(worst)}`);
    setText("token-rest", `median ${duration(median)} · ${late || "none"} over ${budget} ms`);
    drawBudget(at("token-tile").querySelector(".track"), worst, budget);
  } else {
    at("token-tile").dataset.tone = "idle";
    setText("token-figure", "–");
    at("token-bar").style.width = "0";
    setText("token-rest", `each scoped request waits for its token; the budget is ${budget} ms`);
  }

  // What a turn is made of, as long as there is any of it: nobody waits for the rest.
  const turns = rows.filter((row) => row.route === "responses");
  const candidates = (turns.length ? turns : rows.filter((row) => row.transport !== "tunnel")).map(slowest);
  const most = candidates.reduce((worst, one) => (!worst || one.ms > worst.ms ? one : worst), null);
  setText("slow-title", turns.length ? "Slowest turn" : "Slowest request");
  const button = at("slow");
  button.disabled = most === null;
  button.dataset.number = most?.row.number ?? "";
  at("slow-tile").dataset.tone = most && most.ms >= SLOW_MS ? "warn" : "idle";
  if (most) {
    const { row, turn, parts, ms } = most;
    const sums = {}; // a turn waits and receives in turns
    for (const [name, one] of parts) sums[name] = (sums[name] ?? 0) + one;
    const [name, longest] = Object.entries(sums).reduce((longer, one) => (one[1] > longer[1] ? one : longer), ["wait", 0]);
    const which = turn === null || (turn === 1 && row.turns.length === 1) ? `#${row.number}` : `#${row.number}, turn ${turn},`;
    setText("slow", `${which} ${row.is_over || turn !== null ? "took" : "has taken"} ${duration(ms)}`);
    setText("slow-rest", ms > 0 ? `${Math.round((100 * longest) / ms)} % of that: ${PARTS[name][2]}` : "no times are known");
    drawStack(at("slow-stack"), most);
  } else {
    setText("slow", "–");
    setText("slow-rest", "what took its time shows here");
    at("slow-stack").replaceChildren();
  }

  const open = rows.filter((row) => !row.is_over);
  const sockets = open.filter((row) => row.is_socket).length;
  setText("open-figure", plural(open.length - sockets, "request"));
  setText("open-rest", sockets ? `${plural(sockets, "socket or tunnel", "sockets or tunnels")} open` : "no socket open");
}
