// What pages can do beyond what they say without scripts. They work without this one.
"use strict";

// -- the search on the start page ---------------------------------------------------------------

const search = document.getElementById("search");
if (search) {
  const lines = [...document.querySelectorAll("#projects > .project")];
  const texts = lines.map((line) => line.textContent.toLowerCase());
  const box = search.querySelector("input");
  const show = () => {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    lines.forEach((line, index) => {
      line.hidden = !words.every((word) => texts[index].includes(word));
      shown += line.hidden ? 0 : 1;
    });
    const newest = document.getElementById("newest-section");
    if (newest) newest.hidden = words.length > 0;
    document.getElementById("none").hidden = shown > 0;
    const all = `${lines.length} ${lines.length === 1 ? "project" : "projects"}`;
    document.getElementById("count").textContent = words.length ? `${shown} of ${all}` : all;
  };
  if (lines.length) search.hidden = false;
  box.addEventListener("input", show);
  if (box.value) show(); // the browser keeps it when the page is loaded again
}

// -- the address in commands, if the site does not say it ----------------------------------------

const placeholder = document.getElementById("placeholder");
if (placeholder) {
  const root = document.querySelector("[data-root]").dataset.root;
  const address = new URL(root || "./", location.href).href;
  for (const code of document.querySelectorAll("[data-copy]")) {
    code.textContent = code.textContent.replaceAll("INDEX-URL/", address).replaceAll("INDEX-URL", address);
  }
  placeholder.hidden = true;
}

// -- links that installers must not find in the page of a project --------------------------------

for (const element of document.querySelectorAll("[data-link]")) {
  if (/^https?:\/\//.test(element.textContent)) {
    const link = document.createElement("a");
    link.href = link.textContent = element.textContent;
    link.rel = "nofollow noopener noreferrer";
    element.replaceChildren(link);
  }
}

// -- what the public index has under this name now -----------------------------------------------

// The highest version that can be installed there; a final one, if there is any.
function highest(answer) {
  const versions = Object.entries(answer.releases ?? {})
    .filter(([text, files]) => parsePep440(text) && files.some((file) => !file.yanked))
    .map(([text]) => text);
  const final = versions.filter((text) => !isPrerelease(text));
  const known = final.length ? final : versions;
  const fallback = parsePep440(answer.info?.version ?? "") ? answer.info.version : null;
  return known.reduce((best, text) => (best && comparePep440(best, text) >= 0 ? best : text), fallback);
}

function showVerdict(danger, version) {
  const isDanger = version !== undefined && !("acknowledged" in danger.dataset);
  danger.hidden = !isDanger;
  document.getElementById("ways").hidden = isDanger;
  if (isDanger) {
    const higher = version !== null && comparePep440(version, danger.dataset.ours) > 0;
    const name = danger.dataset.name;
    document.getElementById("danger-title").textContent = higher
      ? `The public index has a higher version of ${name}`
      : `The public index has another project called ${name}`;
    document.getElementById("danger-version").textContent = version ?? "unknown";
    document.getElementById("danger-when").textContent = "just now";
  }
}

async function askPublicIndex(danger) {
  let answer;
  try {
    answer = await fetch(danger.dataset.public, { credentials: "omit", cache: "no-cache" });
    if (answer.status === 404) showVerdict(danger, undefined);
    else if (answer.ok) showVerdict(danger, highest(await answer.json()));
  } catch {
    // It cannot be reached; what the site was made with stays.
  }
}

const danger = document.getElementById("danger");
if (danger && danger.dataset.public) askPublicIndex(danger);
