// The four tiles: coverage, token wait, the slowest request, what is under way.

import { SLOW_MS, drawBudget } from "./table.js";
import { PARTS, SYMBOLS, drawStack, duration, plural, setText, waited, waits } from "./words.js";

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
    setText("token-rest", `median ${duration(median)} · ${late || "none"} over the budget of ${budget} ms`);
    drawBudget(at("token-tile").querySelector(".track"), worst, budget);
  } else {
    at("token-tile").dataset.tone = "idle";
    setText("token-figure", "–");
    at("token-bar").style.width = "0";
    setText("token-rest", `each scoped request waits for its token; the budget is ${budget} ms`);
  }

  const slowest = rows.reduce((worst, row) => (row.transport !== "tunnel" && (!worst || waited(row) > waited(worst)) ? row : worst), null);
  const button = at("slow");
  button.disabled = slowest === null;
  button.dataset.number = slowest?.number ?? "";
  if (slowest) {
    const total = waited(slowest);
    const [name, ms] = waits(slowest).reduce((most, one) => (one[1] > most[1] ? one : most), ["wait", 0]);
    at("slow-tile").dataset.tone = total >= SLOW_MS ? "warn" : "idle";
    setText("slow", `#${slowest.number} ${slowest.is_over ? "took" : "has taken"} ${duration(total)}`);
    setText("slow-rest", total > 0 ? `${Math.round((100 * ms) / total)} % of that: ${PARTS[name][0].toLowerCase()}` : "no times are known");
    drawStack(at("slow-stack"), slowest);
  } else {
    at("slow-tile").dataset.tone = "idle";
    setText("slow", "–");
    setText("slow-rest", "what took its time shows here");
    at("slow-stack").replaceChildren();
  }

  const open = rows.filter((row) => !row.is_over);
  const sockets = open.filter((row) => row.is_socket).length;
  setText("open-figure", plural(open.length - sockets, "request"));
  setText("open-rest", sockets ? `${plural(sockets, "socket or tunnel", "sockets or tunnels")} open` : "no socket open");
}
