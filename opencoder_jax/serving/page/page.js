// The page: a chat and a completion side by side, and the settings that both are sampled with.

import { get, stream } from "./api.js";
import { element, markdown } from "./markdown.js";
import { TokenView, fromChat, fromCompletion, showAlternatives } from "./tokens.js";

const $ = (id) => document.getElementById(id);
const sampling = $("sampling");
let model = "";

// --------------------------------------------------------------------------------------------------------- settings

function settings() {
  const asked = {};
  for (const name of ["temperature", "top_p", "min_p", "repetition_penalty", "top_k", "max_tokens", "seed"]) {
    const value = sampling.elements[name].value.trim();
    if (value !== "" && Number.isFinite(Number(value))) asked[name] = Number(value);
  }
  const stops = sampling.elements.stop.value.split("\n").filter((stop) => stop);
  if (stops.length) asked.stop = stops.map((stop) => stop.replaceAll("\\n", "\n"));
  return asked;
}

function remember() {
  const kept = {};
  for (const field of sampling.elements) {
    if (field.name && field.name !== "key") kept[field.name] = field.type === "checkbox" ? field.checked : field.value;
  }
  localStorage.setItem("sampling", JSON.stringify(kept));
  sessionStorage.setItem("key", sampling.elements.key.value); // gone with the tab
  showValues();
}

function recall() {
  let kept = {};
  try {
    kept = JSON.parse(localStorage.getItem("sampling") ?? "{}");
  } catch { /* somebody else's: the defaults do */ }
  for (const field of sampling.elements) {
    if (!Object.hasOwn(kept, field.name)) continue;
    if (field.type === "checkbox") field.checked = kept[field.name] === true;
    else field.value = String(kept[field.name]);
  }
  sampling.elements.key.value = sessionStorage.getItem("key") ?? "";
  showValues();
}

function showValues() {
  for (const shown of sampling.querySelectorAll(".value")) shown.textContent = shown.parentElement.querySelector("input").value;
}

function theme(name) {
  document.documentElement.dataset.theme = name;
  $("theme").textContent = name === "dark" ? "Light" : "Dark";
}

function pane(name) {
  document.body.dataset.pane = name;
  for (const each of ["chat", "completion"]) $(`show-${each}`).setAttribute("aria-pressed", String(each === name));
}

function showSettings(shown) {
  $("settings").classList.toggle("shown", shown);
  $("show-settings").setAttribute("aria-expanded", String(shown));
}

// ---------------------------------------------------------------------------------------------------------- answers

// One answer under way in a form: its button stops it meanwhile.
class Asking {
  constructor(form) {
    this.form = form;
    this.button = form.querySelector(".main");
    this.controller = null;
  }

  get busy() { return this.controller !== null; }

  stop() { this.controller?.abort(); }

  // Streams an answer; returns a note about its end. `on` gets every choice that comes.
  async run(path, body, on) {
    this.controller = new AbortController();
    this.button.textContent = "Stop";
    this.button.classList.add("stop");
    const begun = performance.now();
    let first = 0, tokens = 0, reason = null;
    try {
      const asked = { model, ...settings(), ...body, stream_options: { include_usage: true } };
      await stream(path, asked, sampling.elements.key.value, this.controller.signal, (chunk) => {
        if (chunk.usage) tokens = chunk.usage.completion_tokens;
        for (const choice of chunk.choices) {
          if (!first && (choice.text || choice.delta?.content)) first = performance.now();
          reason = choice.finish_reason ?? reason;
          on(choice);
        }
      });
      const seconds = (performance.now() - begun) / 1000;
      const cut = reason === "length" ? " · cut off: raise “Most tokens” for more" : "";
      return { text: `${tokens} tokens, ${(tokens / seconds).toFixed(1)} a second, the first after ${((first || performance.now()) - begun).toFixed(0)} ms${cut}` };
    } catch (error) {
      return error.name === "AbortError" ? { text: "stopped" } : { text: error.message, wrong: true };
    } finally {
      this.controller = null;
      this.button.textContent = this.button.dataset.idle;
      this.button.classList.remove("stop");
    }
  }
}

// Does something once before the next picture, however often it is asked to.
function perFrame(act) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; act(); });
  };
}

function follow(box, act) {
  const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 60;
  act();
  if (atEnd) box.scrollTop = box.scrollHeight;
}

function note(place, { text, wrong }) {
  place.textContent = text;
  place.classList.toggle("wrong", Boolean(wrong));
}

// ------------------------------------------------------------------------------------------------------------- chat

const messages = []; // of the conversation
const chatting = new Asking($("ask"));

async function answer() {
  const box = $("messages");
  const article = $("answer").content.cloneNode(true).firstElementChild;
  const said = article.querySelector(".said");
  const message = { role: "assistant", content: "", tokens: [], article };
  const asked = messages.map(({ role, content }) => ({ role, content }));
  if ($("system").value.trim()) asked.unshift({ role: "system", content: $("system").value });
  messages.push(message);
  box.append(article);
  box.scrollTop = box.scrollHeight;
  const show = () => follow(box, () => {
    const coloured = article.querySelector(".show-tokens").getAttribute("aria-pressed") === "true";
    said.classList.toggle("tokens", coloured);
    if (coloured) new TokenView(said).add(message.tokens, message.content, message.ended);
    else said.replaceChildren(...markdown(message.content));
  });
  message.show = show;
  const soon = perFrame(show);
  const end = await chatting.run("v1/chat/completions", { messages: asked, logprobs: true, top_logprobs: 5 }, (choice) => {
    message.content += choice.delta.content ?? "";
    message.tokens.push(...(choice.logprobs?.content ?? []).map(fromChat));
    soon();
  });
  message.ended = true;
  show();
  follow(box, () => note(article.querySelector(".note"), end));
}

function ask() {
  if (chatting.busy) return chatting.stop();
  const content = $("question").value.trim();
  if (!content) return undefined;
  $("question").value = "";
  grow();
  $("messages").querySelector(".empty")?.remove();
  const article = element("article", { class: "message user" }, element("div", { class: "who" }, "You"), element("div", { class: "said" }, content));
  messages.push({ role: "user", content, article });
  $("messages").append(article);
  return answer();
}

function forget() {
  chatting.stop();
  for (const { article } of messages.splice(0)) article.remove();
  $("question").focus();
}

function grow() {
  const box = $("question");
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight + 2}px`;
}

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Can’t copy";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 1200);
}

$("messages").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.classList.contains("copy-code")) copy(button.closest(".block").querySelector("pre").textContent, button);
  const message = messages.find((each) => each.article === button.closest(".message"));
  if (!message) return;
  if (button.classList.contains("copy")) copy(message.content, button);
  if (button.classList.contains("show-tokens")) {
    button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
    message.show();
  }
  if (button.classList.contains("again") && !chatting.busy) {
    for (const { article } of messages.splice(messages.indexOf(message))) article.remove();
    answer();
  }
});
$("ask").addEventListener("submit", (event) => { event.preventDefault(); ask(); });
$("question").addEventListener("input", grow);
$("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    if (!chatting.busy) ask();
  }
});
$("new").addEventListener("click", forget);

// ------------------------------------------------------------------------------------------------------- completion

const completing = new Asking($("complete"));
let continuation = "";

async function complete() {
  if (completing.busy) return completing.stop();
  const box = $("continuation");
  const prompt = $("prompt").value;
  const coloured = sampling.elements.colour.checked;
  const body = { prompt, ...(coloured ? { logprobs: 5 } : {}), ...($("suffix").value ? { suffix: $("suffix").value } : {}) };
  const place = element("span");
  box.replaceChildren(element("span", { class: "given" }, prompt.split("\n").slice(-4).join("\n")), place);
  const view = new TokenView(place);
  continuation = "";
  $("keep").disabled = true;
  let fresh = [];
  let ended = false;
  const show = () => follow(box, () => {
    if (coloured) view.add(fresh, continuation, ended);
    else place.textContent = continuation;
    fresh = [];
  });
  const soon = perFrame(show);
  const end = await completing.run("v1/completions", body, (choice) => {
    continuation += choice.text;
    if (choice.logprobs) fresh.push(...fromCompletion(choice.logprobs));
    soon();
  });
  ended = true;
  show();
  $("keep").disabled = !continuation;
  note($("speed"), end);
  return undefined;
}

$("complete").addEventListener("submit", (event) => { event.preventDefault(); complete(); });
$("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !completing.busy) { event.preventDefault(); complete(); }
});
$("keep").addEventListener("click", () => {
  $("prompt").value += continuation;
  $("prompt").scrollTop = $("prompt").scrollHeight;
  $("keep").disabled = true;
  $("continuation").replaceChildren();
});

// ------------------------------------------------------------------------------------------------------------ begin

async function meet() {
  try {
    const [described] = (await get("v1/models", sampling.elements.key.value)).data;
    model = described.id;
    $("model").textContent = model;
    $("about").textContent = `context ${described.max_model_len.toLocaleString("en")} tokens`;
    document.title = model;
    const most = sampling.elements.max_tokens;
    most.max = described.max_model_len - 1;
    if (Number(most.value) > most.max / 2) most.value = Math.floor(most.max / 2); // room for a prompt
  } catch (error) {
    $("model").textContent = error.message;
  }
}

sampling.addEventListener("input", remember);
sampling.addEventListener("submit", (event) => event.preventDefault());
sampling.elements.key.addEventListener("change", meet);
$("show-chat").addEventListener("click", () => pane("chat"));
$("show-completion").addEventListener("click", () => pane("completion"));
$("show-settings").addEventListener("click", () => showSettings($("show-settings").getAttribute("aria-expanded") !== "true"));
$("hide-settings").addEventListener("click", () => showSettings(false));
$("theme").addEventListener("click", () => {
  const name = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  localStorage.setItem("theme", name);
  theme(name);
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  showSettings(false);
  chatting.stop();
  completing.stop();
});
theme(localStorage.getItem("theme") ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
recall();
showAlternatives($("alternatives"));
meet();
