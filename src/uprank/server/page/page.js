
"use strict";

// Nothing is stored: query, documents and key are in this page's memory and in the requests to the server it came from.
// All text is put in as text, never as markup.

const EXAMPLE = {
  query: "May I take a dog on the train?",
  documents: [
    "Bicycles travel outside rush hours, and each of them needs a ticket.",
    "The dining car opens at six in the morning and serves warm meals until ten.",
    "Refunds: in May and June it can take a month until a form is answered.",
    "Small pets travel free of charge in a closed carrier that fits under the seat.",
    "When there are works on the line, buses run instead of some services.",
    "Large dogs need a half-price ticket, and wear a muzzle and a lead on board.",
    "Seats can be reserved until five minutes before departure.",
    "Guide dogs and assistance animals are welcome in every carriage.",
    "Lost something? Write to the lost property office with the date and the number of the train.",
    "Animals may not enter the dining car.",
  ],
};

const SCORES = { rank: "for order only" }; // where the name of a kind says too little

const at = (id) => document.getElementById(id);
const form = at("form");
const columns = at("columns");

/** What a person is told in the place of a result. */
class Told extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

/** An element with attributes, and with texts or elements in it. */
function made(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const counted = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

// The server.

/** Ask the server; gives what the reply holds, its headers, and the milliseconds until its end. */
async function asked(path, options = {}) {
  const headers = { accept: "application/json" };
  if (options.body) headers["content-type"] = "application/json";
  const key = at("key").value.trim();
  if (!/^[\x20-\x7e]*$/.test(key)) throw new Told("The key holds characters that no header can carry.", 401);
  if (key) headers.authorization = `Bearer ${key}`;
  const started = performance.now();
  let reply, text;
  try {
    reply = await fetch(path, { cache: "no-store", ...options, headers });
    text = await reply.text();
  } catch {
    if (options.signal?.aborted) throw new Told("Stopped.");
    throw new Told("The server cannot be reached.");
  }
  const elapsed = performance.now() - started;
  const content = parsed(text);
  if (!reply.ok) {
    const said = [content?.message, content?.detail].find((one) => typeof one === "string" && one);
    const wait = reply.headers.get("retry-after");
    const more = reply.status === 429 && wait ? ` Try again in ${wait} s.` : "";
    throw new Told((said ?? `The server answered with status ${reply.status}.`) + more, reply.status);
  }
  if (content === undefined) throw new Told("The server's answer is not JSON.");
  return { content, elapsed, headers: reply.headers };
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** The milliseconds in the server, of a Server-Timing header, where it has any; the longest includes the others. */
function serverTime(header) {
  const times = [...(header ?? "").matchAll(/;\s*dur=([\d.]+)/g)].map(([, milliseconds]) => Number(milliseconds));
  return times.length ? Math.max(...times) : null;
}

const shortTime = (milliseconds) => `${milliseconds.toFixed(milliseconds < 10 ? 1 : 0)} ms`;

// The models.

let models = null; // what /v1/models lists; null until it did

async function loadModels() {
  try {
    const { content } = await asked("v1/models");
    models = content.data;
  } catch (error) {
    models = null;
    if (error.status === 401) askForKey(at("key").value.trim() && error.message); // none yet is no mistake
    else tell("models", error.message);
    return false;
  }
  tell("key", "");
  tell("models", "");
  const chosen = new Set(chosenModels());
  const boxes = models.map((model, number) => {
    const box = made("input", { type: "checkbox", name: "model", value: model.id });
    box.checked = chosen.size ? chosen.has(model.id) : isDefault(model, number);
    return made("label", {}, box, model.id);
  });
  at("models").replaceChildren(...boxes);
  return true;
}

const isDefault = (model, number) => model.default ?? number === 0;

const chosenModels = () => [...document.querySelectorAll("[name=model]:checked")].map((box) => box.value);

function askForKey(message) {
  at("key-field").hidden = false;
  if (!models) at("models").replaceChildren(made("p", { class: "help" }, "They are listed once there is a key."));
  tell("key", message);
}

// What is asked.

/** The documents as they will be sent.
 *  @throws {Told} if they cannot be. */
function documentsGiven() {
  const text = at("documents").value;
  const format = form.elements.format.value;
  if (format === "json" && text.trim()) return fromJson(text);
  const parts = text.split(format === "lines" ? /\r?\n/ : /\r?\n(?:[ \t]*\r?\n)+/);
  return parts.map((part) => part.trim()).filter(Boolean);
}

function fromJson(text) {
  const list = parsed(text);
  if (!Array.isArray(list)) throw new Told("This is not a JSON list, such as [\"one\", \"two\"].");
  list.forEach((one, number) => {
    if (typeof textOf(one) !== "string") {
      throw new Told(`Document ${number + 1} is neither a string nor an object with a string under "text".`);
    }
  });
  return list;
}

const textOf = (given) => (typeof given === "string" ? given : given?.text);

function showCount() {
  let documents;
  try {
    documents = documentsGiven();
  } catch {
    documents = [];
  }
  at("count").textContent = documents.length ? counted(documents.length, "document") : "";
}

/** Say what is wrong with a field, or with "" that nothing is. */
function tell(field, problem) {
  const place = at(`${field}-problem`);
  place.textContent = problem;
  place.hidden = !problem;
  if (at(field).matches("input, textarea")) at(field).setAttribute("aria-invalid", String(Boolean(problem)));
}

/** What to ask, or null where something is missing, which is then said and focused. */
function question() {
  const query = at("query").value.trim();
  const top = at("top").value.trim();
  const problems = { query: "", documents: "", models: "", top: "" };
  let documents = [];
  if (!query) problems.query = "There is no query yet.";
  try {
    documents = documentsGiven();
    if (!documents.length) problems.documents = "There are no documents yet.";
  } catch (error) {
    problems.documents = error.message;
  }
  if (!chosenModels().length) problems.models = "Choose a model.";
  if (top && !/^[1-9]\d{0,8}$/.test(top)) problems.top = "Top takes a whole number from 1, or nothing for all.";
  for (const [field, problem] of Object.entries(problems)) tell(field, problem);
  const wrong = Object.keys(problems).find((field) => problems[field]);
  if (wrong) {
    (wrong === "models" ? document.querySelector("[name=model]") : at(wrong))?.focus();
    at("status").textContent = problems[wrong];
    return null;
  }
  const instruction = at("instruction").value.trim();
  return { query, documents, ...(top && { top_n: Number(top) }), ...(instruction && { instruction }) };
}

// What came of it.

let running = null; // the AbortController of the run under way

async function rerank() {
  running?.abort();
  if (!models && !(await loadModels())) {
    const keyless = !at("key-field").hidden && !at("key").value.trim();
    if (keyless) tell("key", "There is no key yet.");
    at(at("key-field").hidden ? "query" : "key").focus();
    return;
  }
  const body = question();
  if (!body) return;
  const run = (running = new AbortController());
  const names = chosenModels();
  at("empty").hidden = true;
  at("notes").hidden = at("whole-field").hidden = false;
  at("stop").hidden = false;
  columns.setAttribute("aria-busy", "true");
  const waiting = names.map((name) => column(name, "Waiting"));
  const before = column("Original order", `${counted(body.documents.length, "document")},\nas they came`);
  before.classList.add("before");
  before.append(list(body.documents.map((given, index) => hit(index, index, given))));
  columns.replaceChildren(before, ...waiting);
  showMore();
  const told = [];
  for (const [number, name] of names.entries()) { // one after the other, so that none slows another's time
    if (running !== run) return;
    at("status").textContent = `Reranking with ${name} …`;
    describe(waiting[number], "Reranking …");
    told.push(await fill(waiting[number], name, body, run.signal));
  }
  if (running !== run) return;
  running = null;
  at("stop").hidden = true;
  columns.setAttribute("aria-busy", "false");
  at("status").textContent = told.join(" ");
  if (at("results").getBoundingClientRect().top > innerHeight / 2) at("results").scrollIntoView();
}

/** Put a model's order into its column; gives a sentence about it. */
async function fill(place, name, body, signal) {
  let reply, results;
  try {
    reply = await asked("v1/rerank", { method: "POST", body: JSON.stringify({ ...body, model: name }), signal });
    results = reply.content.results;
    if (!Array.isArray(results)) throw new Told("The server's answer holds no results.");
  } catch (error) {
    if (!(error instanceof Told)) throw error;
    describe(place, "No order");
    place.append(made("p", { class: "problem" }, error.message));
    if (error.status === 401) askForKey(error.message);
    return `${name}: ${error.message}`;
  }
  const inServer = serverTime(reply.headers.get("server-timing"));
  const times = shortTime(reply.elapsed) + (inServer === null ? "" : `, ${shortTime(inServer)} in server`);
  const kind = reply.headers.get("x-uprank-score-kind") ?? "";
  const kept = results.length < body.documents.length ? `the first ${results.length} of ${body.documents.length}` : "";
  describe(place, `${times}\n${[kept, kind && `scores: ${SCORES[kind] ?? kind}`].filter(Boolean).join(", ")}`);
  for (const warning of reply.content.meta?.warnings ?? []) place.append(made("p", { class: "warning" }, String(warning)));
  const bars = barsOf(results.map((result) => result.relevance_score), kind);
  const hits = results.map((result, rank) => {
    const entry = hit(rank, result.index, body.documents[result.index]);
    entry.lastChild.append(...scored(rank, result, bars[rank]));
    return entry;
  });
  place.append(list(hits));
  slide(hits);
  const first = results.length ? ` Document ${results[0].index + 1} is first.` : "";
  return `${name} ranked ${counted(body.documents.length, "document")} in ${shortTime(reply.elapsed)}.${first}`;
}

/** Show at which side columns go on, and let keys scroll them if there are any. */
function showMore() {
  const hidden = columns.scrollWidth - columns.clientWidth;
  columns.classList.toggle("more-before", columns.scrollLeft > 1);
  columns.classList.toggle("more-after", columns.scrollLeft < hidden - 1);
  if (hidden > 1) columns.tabIndex = 0;
  else columns.removeAttribute("tabindex");
}

function column(name, told) {
  const title = made("h3", { dir: "auto" }, name);
  return made("section", { class: "column", "aria-label": name }, made("header", {}, title, made("p", {}, told)));
}

const describe = (place, told) => (place.querySelector("header p").textContent = told);

const list = (hits) => made("ol", { role: "list" }, ...hits);

function hit(rank, index, given) {
  const text = made("p", { class: "text", dir: "auto" }, textOf(given) ?? "");
  const place = made("span", { class: "rank" }, String(rank + 1));
  return made("li", { class: "hit", "data-index": index }, place, made("div", {}, text));
}

/** A hit's change of rank, its score, and a bar for it. */
function scored(rank, { index, relevance_score: score }, share) {
  const up = index - rank;
  const [kind, sign, said] =
    up > 0 ? ["up", `▲ ${up}`, `up by ${up},`] : up < 0 ? ["down", `▼ ${-up}`, `down by ${-up},`] : ["", "=", "as before,"];
  const move = made("span", { class: `move ${kind}` }, made("span", { "aria-hidden": "true" }, sign));
  move.append(made("span", { class: "away" }, said));
  const value = made("data", { value: String(score), title: String(score) }, shortScore(score));
  value.prepend(made("span", { class: "away" }, "score "));
  const bar = made("div", {});
  bar.style.width = `${(share * 100).toFixed(1)}%`;
  return [
    made("p", { class: "facts" }, move, made("span", {}, `was ${index + 1}`), value),
    made("div", { class: "bar", "aria-hidden": "true" }, bar),
  ];
}

function shortScore(score) {
  if (typeof score !== "number") return "none";
  const size = Math.abs(score);
  const short = size && size < 0.001 ? score.toExponential(1) : score.toFixed(size < 10 ? 3 : 2);
  return short.replaceAll("-", "−");
}

/** How much of its bar each score fills: a probability as much as it is, others between the column's ends. */
function barsOf(scores, kind) {
  const known = scores.filter((score) => typeof score === "number");
  const low = kind === "probability" ? 0 : Math.min(...known);
  const high = kind === "probability" ? 1 : Math.max(...known);
  return scores.map((score) => (typeof score !== "number" ? 0 : high > low ? (score - low) / (high - low) : 1));
}

/** Let hits slide from where they were to where they are, unless the reader wants no motion. */
function slide(hits) {
  const columnsBeside = getComputedStyle(columns).gridAutoFlow === "column";
  if (!columnsBeside || hits.length > 100 || matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  const tops = hits.map((entry) => entry.getBoundingClientRect().top);
  const before = [...columns.querySelectorAll(".before .hit")].map((entry) => entry.getBoundingClientRect().top);
  hits.forEach((entry, rank) => {
    const from = before[Number(entry.dataset.index)] - tops[rank];
    entry.animate([{ transform: `translateY(${from}px)` }, { transform: "none" }], { duration: 350, easing: "ease-out" });
  });
}

// What a person does.

form.addEventListener("submit", (event) => {
  event.preventDefault();
  rerank();
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    rerank();
  } else if (event.key === "Escape") running?.abort();
});

at("stop").addEventListener("click", () => {
  running?.abort();
  at("query").focus(); // the button is about to go
});

at("documents").addEventListener("input", () => {
  const text = at("documents").value.trimStart();
  const given = text.startsWith("[") ? parsed(text) : undefined;
  if (Array.isArray(given) && given.every((one) => typeof textOf(one) === "string")) form.elements.format.value = "json";
  showCount();
});

for (const choice of form.elements.format) choice.addEventListener("change", showCount);

at("key").addEventListener("change", loadModels);

at("example").addEventListener("click", () => {
  at("query").value = EXAMPLE.query;
  at("documents").value = EXAMPLE.documents.join("\n");
  form.elements.format.value = "lines";
  showCount();
  for (const field of ["query", "documents"]) tell(field, "");
});

at("whole").addEventListener("change", () => columns.classList.toggle("whole", at("whole").checked));

columns.addEventListener("scroll", showMore, { passive: true });
new ResizeObserver(showMore).observe(columns);

columns.addEventListener("pointerover", (event) => {
  const index = event.target.closest(".hit")?.dataset.index;
  for (const entry of columns.querySelectorAll(".hit")) entry.classList.toggle("lit", entry.dataset.index === index);
});

columns.addEventListener("pointerleave", () => {
  for (const entry of columns.querySelectorAll(".hit.lit")) entry.classList.remove("lit");
});

showCount(); // a browser may bring a form's texts back
loadModels();
