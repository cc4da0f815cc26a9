// What a model writes, as HTML. It is not to be trusted: HTML in it is shown as text, and all that
// the parser makes of it is cleaned; the page's policy (server/page.cc) is behind that.
import DOMPurify from "dompurify";
import hljs from "highlight.js/lib/core";
import bash from "highlight.js/lib/languages/bash";
import cpp from "highlight.js/lib/languages/cpp";
import css from "highlight.js/lib/languages/css";
import diff from "highlight.js/lib/languages/diff";
import go from "highlight.js/lib/languages/go";
import java from "highlight.js/lib/languages/java";
import javascript from "highlight.js/lib/languages/javascript";
import json from "highlight.js/lib/languages/json";
import python from "highlight.js/lib/languages/python";
import rust from "highlight.js/lib/languages/rust";
import sql from "highlight.js/lib/languages/sql";
import typescript from "highlight.js/lib/languages/typescript";
import xml from "highlight.js/lib/languages/xml";
import yaml from "highlight.js/lib/languages/yaml";
import { Marked, type Token, type Tokens } from "marked";
import { CopyButton, memo } from "../parts";

const languages = {
  bash,
  cpp,
  css,
  diff,
  go,
  java,
  javascript,
  json,
  python,
  rust,
  sql,
  typescript,
  xml,
  yaml,
};
for (const [name, language] of Object.entries(languages)) hljs.registerLanguage(name, language);
hljs.registerAliases(["c"], { languageName: "cpp" });

const escaped = (text: string) => text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

const marked = new Marked({
  gfm: true,
  breaks: true,
  renderer: {
    // The page has headings above these.
    heading({ tokens, depth }) {
      const level = Math.min(depth + 2, 6);
      return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>`;
    },
    html: ({ text }) => escaped(text),
    // Its address would be asked for, or refused by the policy: it is for the reader to follow.
    image: ({ href, text }) => `<a href="${escaped(href)}">${escaped(text || href)}</a>`,
    code: ({ text, lang }) => `<pre><code>${highlighted(text, lang)}</code></pre>`,
  },
});

DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.nodeName !== "A") return;
  node.setAttribute("target", "_blank");
  node.setAttribute("rel", "noopener noreferrer");
});

const clean = (html: string) =>
  DOMPurify.sanitize(html, {
    USE_PROFILES: { html: true },
    FORBID_TAGS: ["style", "form", "img"],
    FORBID_ATTR: ["style", "id", "name"],
  });

function highlighted(code: string, language: string | undefined): string {
  const name = language?.trim().split(/\s/)[0]?.toLowerCase() ?? "";
  return hljs.getLanguage(name) ? hljs.highlight(code, { language: name }).value : escaped(code);
}

function Code({ code, language }: { code: string; language: string | undefined }) {
  return (
    <div class="code">
      <div class="code-head">
        <span>{language || "text"}</span>
        <CopyButton text={code} label="Copy the code" />
      </div>
      {/* Wide code scrolls, for the keyboard too. */}
      <pre tabIndex={0}>
        <code dangerouslySetInnerHTML={{ __html: clean(highlighted(code, language)) }} />
      </pre>
    </div>
  );
}

// One block of the text. Equal text needs no second look, so that in an answer that grows only the
// last block is drawn again.
const Block = memo(
  ({ token }: { token: Token }) => {
    if (token.type === "code") {
      const { text, lang } = token as Tokens.Code;
      return <Code code={text} language={lang} />;
    }
    return <div dangerouslySetInnerHTML={{ __html: clean(marked.parser([token])) }} />;
  },
  (before, after) => before.token.raw === after.token.raw && before.token.type === after.token.type,
);

export function Markdown({ text }: { text: string }) {
  const tokens = marked.lexer(text).filter(({ type }) => type !== "space");
  return (
    <div class="markdown">
      {tokens.map((token, index) => (
        <Block key={index} token={token} />
      ))}
    </div>
  );
}
