// Code in colours: comments, strings, numbers, keywords and names that are called, by one small lexer for many
// languages. What it doesn't know it leaves as it is.

const C = "break case catch class const continue default do else enum extends false finally for if import in instanceof interface new null package private protected public return static super switch this throw true try typeof var void while";
const KEYWORDS = {
  python: "False None True and as assert async await break class continue def del elif else except finally for from global if import in is lambda match nonlocal not or pass raise return try while with yield",
  javascript: `${C} async await debugger delete export from function let of set get undefined with yield type declare readonly as`,
  java: `${C} abstract boolean byte char double final float implements int long native record short synchronized throws transient volatile`,
  c: "auto bool break case catch char class const constexpr continue default delete do double else enum explicit extern false float for friend goto if inline int long namespace new noexcept nullptr operator override private protected public register return short signed sizeof static struct switch template this throw true try typedef typename union unsigned using virtual void volatile while NULL",
  go: "break case chan const continue default defer else fallthrough false for func go goto if import interface map nil package range return select struct switch true type var",
  rust: "as async await break const continue crate dyn else enum extern false fn for if impl in let loop match mod move mut pub ref return self Self static struct super trait true type unsafe use where while",
  bash: "if then else elif fi for while until do done case esac in function return local export readonly declare set unset echo exit",
  sql: "select from where and or not insert into values update set delete create table drop alter join left right inner outer on group by order having limit as distinct union null is in like between case when then else end primary key",
  json: "true false null",
  css: "",
};
const NAMES = { py: "python", js: "javascript", jsx: "javascript", ts: "javascript", tsx: "javascript", typescript: "javascript", kotlin: "java", scala: "java", "c#": "java", csharp: "java", cs: "java", "c++": "c", cpp: "c", cc: "c", h: "c", hpp: "c", golang: "go", rs: "rust", sh: "bash", shell: "bash", zsh: "bash", console: "bash" };
const STRING = String.raw`"(?:[^"\\\n]|\\.)*"?|'(?:[^'\\\n]|\\.)*'?`;
const NUMBER = String.raw`\b(?:0[xX][\da-fA-F_]+|\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?)\w*`;
const WORD = String.raw`[A-Za-z_$][\w$]*`;
const COMMENTS = {
  python: String.raw`#[^\n]*|"""[^]*?(?:"""|$)|'''[^]*?(?:'''|$)`,
  bash: String.raw`(?<![\w$])#[^\n]*`,
  sql: String.raw`--[^\n]*|/\*[^]*?(?:\*/|$)`,
};
const SLASHES = String.raw`//[^\n]*|/\*[^]*?(?:\*/|$)`;

export function highlighted(code, language) {
  const name = NAMES[language?.toLowerCase()] ?? language?.toLowerCase();
  if (!Object.hasOwn(KEYWORDS, name) || code.length > 200000) return [code];
  const keywords = new Set(KEYWORDS[name].split(" "));
  const backquotes = name === "javascript" || name === "go" ? "|`[^`]*`?" : "";
  const lexer = new RegExp(`(?<c>${COMMENTS[name] ?? SLASHES})|(?<s>${STRING}${backquotes})|(?<n>${NUMBER})|(?<w>${WORD})`, "g");
  const made = [];
  let done = 0;
  for (const found of code.matchAll(lexer)) {
    const { c, s, n, w } = found.groups;
    const text = found[0];
    let kind = c !== undefined ? "c" : s !== undefined ? "s" : n !== undefined ? "n" : null;
    if (c !== undefined && /^("""|''')/.test(c)) kind = "s";
    if (w !== undefined && keywords.has(name === "sql" ? w.toLowerCase() : w)) kind = "k";
    else if (w !== undefined && code[found.index + text.length] === "(") kind = "f";
    if (!kind) continue;
    const span = document.createElement("span");
    span.className = kind;
    span.textContent = text;
    made.push(code.slice(done, found.index), span);
    done = found.index + text.length;
  }
  made.push(code.slice(done));
  return made;
}
