// What a keyboard and a screen reader need of a page of Material: names for its parts, and a way into what scrolls.
"use strict";
(() => {
  document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
  // Sizes are read when they are known: asked for earlier, they would have the whole page laid out once more.
  const sizes = new ResizeObserver((boxes) => {
    for (const { target } of boxes) {
      if (target.scrollWidth > target.clientWidth) target.tabIndex = 0; else target.removeAttribute("tabindex");
    }
  });
  let codes = 0;
  const look = (part) => {
    for (const one of part.querySelectorAll("pre > code, .md-typeset__scrollwrap")) sizes.observe(one);
    for (const one of part.querySelectorAll(".md-code__nav:not([aria-label])")) one.setAttribute("aria-label", `Code ${++codes}`);
  };
  // Material wraps tables, and adds buttons to code, when it gets to them.
  new MutationObserver((changes) => {
    for (const change of changes) {
      for (const one of change.addedNodes) if (one.parentElement) look(one.parentElement);
    }
  }).observe(document.querySelector(".md-content") ?? document.body, { childList: true, subtree: true });
  look(document);
})();
