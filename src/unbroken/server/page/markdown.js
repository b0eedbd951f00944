// Markdown as HTML that can do nothing: what a model says is no more to be trusted than its prompt.

import { marked } from "./vendor/marked.js";

const SAFE = {
  FORBID_TAGS: ["style", "form", "input", "button", "textarea", "select", "iframe", "img", "svg", "math"],
  FORBID_ATTR: ["style", "id", "name"],
};

DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.tagName === "A") {
    node.setAttribute("target", "_blank");
    node.setAttribute("rel", "noopener noreferrer");
  }
});

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
