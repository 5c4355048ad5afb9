// Markdown as elements of the page. What a model says is anybody's text: it only ever becomes text nodes and the
// elements made here, never HTML that a browser would parse; links lead to the web or to mail, pictures aren't loaded.

import { highlighted } from "./highlight.js";

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// The elements of a text; one that is still being written is shown as far as it goes.
export function markdown(text) {
  return blocks(text.replace(/\r\n?/g, "\n").split("\n"));
}

function blocks(lines, depth = 0) {
  const made = [];
  let at = 0;
  while (at < lines.length) {
    const line = lines[at];
    const fence = line.match(/^ {0,3}(`{3,}|~{3,}) *([\w+#.-]*)/);
    if (fence) {
      const end = lines.findIndex((each, place) => place > at && each.trim().startsWith(fence[1]) && !each.trim().replaceAll(fence[1][0], ""));
      const indent = line.match(/^ */)[0].length;
      const code = lines.slice(at + 1, end < 0 ? lines.length : end).map((each) => each.slice(Math.min(indent, each.match(/^ */)[0].length)));
      made.push(codeBlock(code.join("\n"), fence[2]));
      at = end < 0 ? lines.length : end + 1;
    } else if (!line.trim()) {
      at += 1;
    } else if (/^ {0,3}#{1,6} /.test(line)) {
      const level = line.trim().match(/^#+/)[0].length;
      made.push(element(`h${Math.min(level + 2, 5)}`, {}, ...inline(line.trim().slice(level).replace(/ #+$/, "").trim())));
      at += 1;
    } else if (/^ {0,3}([-*_])( *\1){2,} *$/.test(line)) {
      made.push(element("hr"));
      at += 1;
    } else if (/^ {0,3}>/.test(line) && depth < 8) {
      const end = until(lines, at, (each) => !/^ {0,3}>/.test(each));
      const inner = lines.slice(at, end).map((each) => each.replace(/^ {0,3}> ?/, ""));
      made.push(element("blockquote", {}, ...blocks(inner, depth + 1)));
      at = end;
    } else if (marker(line) && depth < 8) {
      at = list(lines, at, made, depth);
    } else if (line.includes("|") && /^[\s|:-]*-[\s|:-]*$/.test(lines[at + 1] ?? "") && lines[at + 1].includes("|")) {
      const end = until(lines, at + 2, (each) => !each.includes("|"));
      made.push(table(line, lines.slice(at + 2, end)));
      at = end;
    } else {
      const end = until(lines, at + 1, (each) => !each.trim() || /^ {0,3}(`{3}|~{3}|#{1,6} |>)/.test(each) || marker(each));
      made.push(element("p", {}, ...inline(lines.slice(at, end).join("\n"))));
      at = end;
    }
  }
  return made;
}

function until(lines, from, ends) {
  let at = from;
  while (at < lines.length && !ends(lines[at])) at += 1;
  return at;
}

function marker(line) {
  return line.match(/^( *)([-*+]|\d{1,9}[.)])( +|$)/);
}

// A list and what is indented below its points; returns the line behind it.
function list(lines, from, made, depth) {
  const first = marker(lines[from]);
  const ordered = /\d/.test(first[2]);
  const whole = element(ordered ? "ol" : "ul", ordered ? { start: parseInt(first[2], 10) } : {});
  let at = from;
  while (at < lines.length) {
    const point = marker(lines[at]);
    if (!point || point[1].length !== first[1].length || /\d/.test(point[2]) !== ordered) break;
    const width = point[0].length;
    const end = until(lines, at + 1, (each, _) => each.trim() && each.match(/^ */)[0].length <= first[1].length);
    const inner = [lines[at].slice(width), ...lines.slice(at + 1, end).map((each) => each.slice(Math.min(width, each.match(/^ */)[0].length)))];
    const content = blocks(inner, depth + 1);
    if (content[0]?.tagName === "P") content.splice(0, 1, ...content[0].childNodes);
    whole.append(element("li", {}, ...content));
    at = end;
  }
  made.push(whole);
  return at;
}

function table(head, rows) {
  const cells = (line, name) => element("tr", {}, ...line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => element(name, {}, ...inline(cell.trim()))));
  return element("table", {}, cells(head, "th"), ...rows.map((row) => cells(row, "td")));
}

export function codeBlock(code, language) {
  const copy = element("button", { type: "button", class: "copy-code" }, "Copy");
  return element("div", { class: "block" }, element("div", { class: "bar" }, language || "code", copy), element("pre", {}, element("code", {}, ...highlighted(code, language))));
}

// The inner elements of a paragraph. Each kind is a search forward for its closing mark, so a text takes linear time
// for each kind of mark that it leaves open; `closed` remembers that there is none further on.
function inline(text, depth = 0) {
  const made = [];
  const missing = new Set();
  let plain = "";
  let at = 0;
  const flush = () => { if (plain) made.push(plain); plain = ""; };
  const closing = (mark, from) => {
    if (missing.has(mark)) return -1;
    const found = text.indexOf(mark, from);
    if (found < 0) missing.add(mark);
    return found;
  };
  while (at < text.length) {
    const rest = text[at];
    let end;
    if (rest === "\\" && /[!-/:-@[-`{-~]/.test(text[at + 1] ?? "")) {
      plain += text[at + 1];
      at += 2;
    } else if (rest === "`") {
      const mark = text.slice(at).match(/^`+/)[0];
      if ((end = closing(mark, at + mark.length)) > 0) {
        flush();
        made.push(element("code", {}, text.slice(at + mark.length, end).replace(/^ (.*) $/s, "$1")));
        at = end + mark.length;
      } else { plain += mark; at += mark.length; }
    } else if (depth < 6 && (end = styled(text, at, closing)) !== null) {
      flush();
      made.push(element(end.name, {}, ...inline(text.slice(at + end.mark.length, end.at), depth + 1)));
      at = end.at + end.mark.length;
    } else if (depth < 6 && (rest === "[" || (rest === "!" && text[at + 1] === "[")) && (end = link(text, at + (rest === "!"), closing))) {
      flush();
      made.push(element("a", { href: end.address, rel: "noopener noreferrer nofollow", target: "_blank" }, ...inline(end.words, depth + 1)));
      at = end.at;
    } else if (rest === "\n") {
      const hard = plain.endsWith("  ");
      plain = plain.trimEnd();
      flush();
      made.push(hard ? element("br") : " ");
      at += 1;
    } else { plain += rest; at += 1; }
  }
  flush();
  return made;
}

const STYLES = [["**", "strong"], ["__", "strong"], ["~~", "del"], ["*", "em"], ["_", "em"]];

function styled(text, at, closing) {
  for (const [mark, name] of STYLES) {
    if (!text.startsWith(mark, at)) continue;
    const word = mark[0] === "_" && /\w/.test(text[at - 1] ?? ""); // snake_case isn't emphasis
    if (word || /\s/.test(text[at + mark.length] ?? " ")) return null;
    const found = closing(mark, at + mark.length + 1);
    if (found > 0 && !/\s/.test(text[found - 1]) && !(mark[0] === "_" && /\w/.test(text[found + mark.length] ?? ""))) return { at: found, mark, name };
    if (mark.length === 2) return null;
  }
  return null;
}

function link(text, at, closing) {
  const middle = closing("](", at + 1);
  const end = middle < 0 ? -1 : closing(")", middle + 2);
  if (end < 0 || text.slice(at + 1, middle).includes("[")) return null;
  const address = text.slice(middle + 2, end).trim().split(/\s/)[0];
  return /^(https?:\/\/|mailto:)/i.test(address) ? { at: end + 1, address, words: text.slice(at + 1, middle) } : null;
}
