// Tokens coloured by their probability, with what else could have stood there.

const encoder = new TextEncoder();

// A token of either interface: its bytes, its log-probability, its likeliest alternatives.
export function fromChat(entry) {
  return { bytes: Uint8Array.from(entry.bytes ?? []), name: entry.token, logprob: entry.logprob, top: entry.top_logprobs.map((each) => [each.token, each.logprob]) };
}

export function fromCompletion(logprobs) {
  return logprobs.tokens.map((name, at) => ({ bytes: bytesOf(name), name, logprob: logprobs.token_logprobs[at] ?? 0, top: Object.entries(logprobs.top_logprobs?.[at] ?? {}).sort((one, other) => other[1] - one[1]) }));
}

function bytesOf(name) {
  const parts = name.match(/^bytes:((?:\\x[\da-f]{2})+)$/);
  return parts ? Uint8Array.from(parts[1].split("\\x").slice(1), (part) => parseInt(part, 16)) : encoder.encode(name);
}

// Spans that together show a text as it grows. A character's parts are one span; what the text hasn't (a stop string,
// the end of a document) isn't shown, and what it may yet have waits.
export class TokenView {
  constructor(place) {
    this.place = place;
    this.decoder = new TextDecoder();
    this.parts = []; // [text, tokens] that aren't shown yet
    this.begun = []; // tokens of a character that isn't whole
    this.shown = 0;
    place.replaceChildren();
  }

  add(tokens, text, ended) {
    for (const token of tokens) {
      const part = this.decoder.decode(token.bytes, { stream: true });
      this.begun.push(token);
      if (!part) continue;
      this.parts.push([part, this.begun]);
      this.begun = [];
    }
    while (this.parts.length && this.shown < text.length) {
      const [part, made] = this.parts[0];
      if (this.shown + part.length > text.length && !ended) return;
      this.parts.shift();
      this.place.append(spanOf(text.slice(this.shown, this.shown + part.length), made));
      this.shown += part.length;
    }
  }
}

function spanOf(text, tokens) {
  const span = document.createElement("span");
  span.className = "token";
  span.textContent = text;
  span.style.setProperty("--doubt", (1 - Math.exp(tokens.reduce((sum, each) => sum + each.logprob, 0))).toFixed(3));
  span.tokens = tokens;
  return span;
}

function spelt(name) {
  const code = (control) => `\\x${control.charCodeAt(0).toString(16).padStart(2, "0")}`;
  return name.replaceAll("\n", "⏎").replaceAll("\t", "⇥").replaceAll(" ", "·").replace(/[\x00-\x1f\x7f-\x9f]/g, code) || "(nothing)";
}

function percent(logprob) {
  const share = 100 * Math.exp(logprob);
  return share >= 99.95 ? "100 %" : share >= 0.1 ? `${share.toFixed(1)} %` : "< 0.1 %";
}

// Shows the alternatives of the token that is pointed at, tapped or focused.
export function showAlternatives(box) {
  let chosen = null;
  const hide = () => {
    chosen?.classList.remove("chosen");
    chosen = null;
    box.hidden = true;
  };
  const show = (event) => {
    const span = event.target.closest?.(".token");
    if (!span?.tokens) return event.type === "click" ? hide() : undefined;
    if (span === chosen) return undefined;
    hide();
    chosen = span;
    span.classList.add("chosen");
    box.replaceChildren(...span.tokens.flatMap((token) => rows(token)));
    box.hidden = false;
    const place = span.getClientRects()[0];
    const { width, height } = box.getBoundingClientRect();
    const below = place.bottom + 6 + height < innerHeight;
    box.style.left = `${Math.max(6, Math.min(place.left, innerWidth - width - 6))}px`;
    box.style.top = `${below ? place.bottom + 6 : Math.max(6, place.top - height - 6)}px`;
    return undefined;
  };
  document.addEventListener("pointerover", show);
  document.addEventListener("click", show);
  document.addEventListener("pointerout", (event) => { if (event.pointerType === "mouse" && event.target === chosen) hide(); });
  document.addEventListener("scroll", hide, true);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
}

function rows(token) {
  const drawnIsShown = token.top.some(([name]) => name === token.name);
  const all = drawnIsShown ? token.top : [...token.top, [token.name, token.logprob]];
  return all.map(([name, logprob]) => {
    const row = document.createElement("div");
    if (name === token.name) row.className = "drawn";
    row.style.setProperty("--share", `${(100 * Math.exp(logprob)).toFixed(1)}%`);
    const code = document.createElement("code");
    code.textContent = spelt(name);
    const share = document.createElement("span");
    share.textContent = percent(logprob);
    row.append(code, share);
    return row;
  });
}
