// Markdown as HTML that can do nothing: the text of a model is no more to be trusted than its prompt.

import { marked } from "./vendor/marked.js";

// All that marked writes for Markdown, but images: a request for one tells its server who reads.
const SAFE = {
  ALLOWED_TAGS: [
    "a", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre",
    "strong", "sub", "sup", "table", "tbody", "td", "th", "thead", "tr", "ul",
  ],
  ALLOWED_ATTR: ["align", "href", "start", "title"],
  ALLOWED_URI_REGEXP: /^(?:https?:\/\/|mailto:)/i,
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
};

DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.tagName !== "A") return;
  if (isOurs(node.href)) node.removeAttribute("href");
  node.setAttribute("target", "_blank");
  node.setAttribute("rel", "noopener noreferrer");
});

/** Whether an address is of this gateway: a click on `/stream?prompt=...` would start an answer. */
const isOurs = (href) => URL.canParse(href) && new URL(href).host === location.host;

export function html(text) {
  const clean = DOMPurify.sanitize(marked.parse(text, { gfm: true, breaks: false }), {
    ...SAFE,
    RETURN_DOM_FRAGMENT: true,
  });
  for (const block of clean.querySelectorAll("pre")) block.append(copyButton());
  return clean;
}

function copyButton() {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "Copy";
  return button;
}
