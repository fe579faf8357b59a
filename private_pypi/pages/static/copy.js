// Adds a button to every command that copies it. The pages also work without this script.
"use strict";

function copyBySelection(element) {
  // For pages that did not come over TLS, in which browsers have no clipboard.
  const range = document.createRange();
  range.selectNodeContents(element);
  const selection = window.getSelection();
  selection.removeAllRanges();
  selection.addRange(range);
  return document.execCommand("copy");
}

async function copy(element) {
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(element.textContent);
      return true;
    } catch {
      // Not allowed, but copying a selection may be.
    }
  }
  return copyBySelection(element);
}

for (const element of document.querySelectorAll("[data-copy]")) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "Copy";
  button.setAttribute("aria-label", `Copy: ${element.dataset.copy}`);
  button.addEventListener("click", async () => {
    const done = await copy(element);
    button.textContent = done ? "Copied" : "Select and copy";
    document.getElementById("said").textContent = done ? "Copied" : "Could not copy";
    setTimeout(() => {
      button.textContent = "Copy";
    }, 2000);
  });
  element.closest(".command").append(button);
}

// An open menu closes with Escape, and with a click elsewhere.
const menu = document.querySelector("details.switcher");
if (menu) {
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && menu.open) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
  });
  document.addEventListener("click", (event) => {
    if (!menu.contains(event.target)) menu.open = false;
  });
}
