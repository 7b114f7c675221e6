"use strict";
// The page of `onsight label`: it shows one image at a time and sends each answer at once. Everything works by keyboard.
// Names come from strangers: they are set as text, never as HTML.
const $ = (id) => document.getElementById(id);
const FEW = 9; // classes that each have a digit of their own; of more, the likeliest have one
const MATCHES = 8; // classes that a search shows, at most
const percent = (share) => `${(100 * share).toFixed(0)} %`;
let classes = [], question = null, busy = true;
const choices = []; // the class that each digit stands for, from 1

// A session is a tab: it keeps its place when the page is loaded again.
const session = sessionStorage.session ??= Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

async function call(path, value) {
  let response;
  try {
    const options = value && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(value) };
    response = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer. Is it still running? Your answers so far are in the file.");
  }
  if (response.ok) return response.json();
  let message = `The server answered ${response.status}.`;
  try {
    message = (await response.json()).error.message;
  } catch {} // not JSON: the status must do
  throw new Error(message);
}

function choice(name, digit, label) {
  const button = document.createElement("button"), text = document.createElement("span");
  button.type = "button";
  text.title = text.textContent = name;
  if (digit) {
    const key = document.createElement("kbd");
    key.textContent = digit;
    button.append(key);
  }
  button.append(text);
  button.classList.toggle("now", name === label);
  button.addEventListener("click", () => answer(name));
  return button;
}

const REASONS = {
  suspect: () => "The label disagrees with those of similar images, or with the model.",
  unsure: ([first, second]) => second ? `The model is unsure: ${first.class} ${percent(first.probability)}, ${second.class} ${percent(second.probability)}.` : "",
  fits: () => "The label fits those of similar images.",
  far: () => "It is unlike all images that the model was trained on.",
};

function show(state, focus) {
  question = state.question;
  if (focus && document.activeElement !== $("who")) document.activeElement?.blur(); // so that keys answer again
  $("bar").max = Math.max(state.of, 1);
  $("bar").value = state.given;
  $("about").textContent = `${state.given.toLocaleString()} of ${state.of.toLocaleString()} images have an answer${state.skipped ? `, ${state.skipped.toLocaleString()} skipped` : ""}`;
  $("undo").disabled = !state.undo;
  for (const id of ["none", "skip"]) $(id).disabled = question === null;
  $("image").hidden = question === null;
  $("finder").hidden = question === null || classes.length <= FEW;
  $("find").value = "";
  $("found").replaceChildren();
  choices.length = 0;
  if (question === null) {
    $("asked").textContent = state.given === state.of ? "All images have an answer." : "There is nothing left for you: the rest is skipped, or somebody else has it.";
    $("why").textContent = "";
    $("right").hidden = true;
    $("classes").replaceChildren();
    return;
  }
  const { number, path, label, copies, reason, top } = question;
  const known = label !== "";
  $("image").src = `/v1/image/${number}`;
  $("image").alt = path;
  $("asked").textContent = known ? `Is this “${label}”?` : "What is this?";
  const also = copies ? ` The answer also counts for ${copies === 1 ? "a copy" : `${copies} copies`} of it.` : "";
  $("why").textContent = `${REASONS[reason](top)}${also} ${path}`.trim();
  $("right").hidden = !known || !classes.includes(label);
  choices.push(...(classes.length <= FEW ? classes : top.map((each) => each.class)));
  $("classes").replaceChildren(...choices.map((name, place) => choice(name, place + 1, label)));
}

// Send a step, and show what comes next. One at a time: a key that is held down must not answer two questions.
async function step(path, value = {}, done = "") {
  if (busy) return;
  busy = true;
  try {
    localStorage.who = $("who").value;
    show(await call(path, { session, who: $("who").value, ...value }), true);
    $("told").textContent = done;
  } catch (error) {
    $("told").textContent = error.message;
    if (question !== null) {
      try {
        show(await call("/v1/next", { session }), true);
      } catch {} // the message is there already
    }
  } finally {
    busy = false;
  }
}

const answer = (label) => question && step("/v1/label", { question: question.number, label }, `Saved: ${label ?? "none of these"}.`);
const skip = () => question && step("/v1/skip", { question: question.number }, "Skipped.");
const undo = () => $("undo").disabled || step("/v1/undo", {}, "Taken back.");
const right = () => $("right").hidden || answer(question.label);

function find() {
  const wanted = $("find").value.trim().toLowerCase();
  const starts = (name) => name.toLowerCase().startsWith(wanted);
  const matches = wanted === "" ? [] : classes.filter((name) => name.toLowerCase().includes(wanted));
  matches.sort((a, b) => starts(b) - starts(a));
  $("found").replaceChildren(...matches.slice(0, MATCHES).map((name) => choice(name, "", question?.label)));
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const typing = document.activeElement?.tagName === "INPUT";
  if (event.key === "Escape" && typing) return document.activeElement.blur();
  if (typing) {
    if (event.key === "Enter" && document.activeElement === $("find")) $("found").firstChild?.click();
    else if (event.key === "Enter") document.activeElement.blur();
    return;
  }
  if (event.key === "Enter" && document.activeElement?.tagName === "BUTTON") return; // it presses the button
  const number = Number(event.key);
  if (event.key === "0") answer(null);
  else if (number >= 1 && number <= choices.length) answer(choices[number - 1]);
  else if (event.key === "ArrowRight" || event.key === "s") skip();
  else if (event.key === "ArrowLeft" || event.key === "Backspace" || event.key === "u") undo();
  else if (event.key === "Enter") right();
  else if (event.key === "/" && !$("finder").hidden) $("find").focus();
  else return;
  event.preventDefault();
});
$("find").addEventListener("input", find);
$("right").addEventListener("click", right);
$("none").addEventListener("click", () => answer(null));
$("skip").addEventListener("click", skip);
$("undo").addEventListener("click", undo);

async function begin() {
  try {
    const facts = await call("/v1/start");
    classes = facts.classes;
    document.title = `Label images · ${facts.run}`;
    $("who").value = localStorage.who ?? facts.user;
    $("csv").textContent = facts.file;
    $("command").textContent = facts.command;
    show(await call("/v1/next", { session }), false);
    busy = false;
    document.body.dataset.state = "ready";
  } catch (error) {
    $("asked").textContent = "The server is not ready";
    $("told").textContent = error.message;
    document.body.dataset.state = "failed";
  }
}
begin();
