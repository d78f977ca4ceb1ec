"use strict";
(() => {
  const byId = (id) => document.getElementById(id);

  // --- the layers: sorting and filtering ---
  const table = byId("layer-table");
  if (table) {
    const body = table.tBodies[0];
    const ordered = [...body.rows];
    const rows = [...ordered];
    const number = (cell) => (cell.dataset.value === undefined ? NaN : Number(cell.dataset.value));

    const compare = (a, b) => {
      const [x, y] = [number(a), number(b)];
      if (!isNaN(x) || !isNaN(y)) return isNaN(x) ? 1 : isNaN(y) ? -1 : x - y;
      return a.textContent.localeCompare(b.textContent, undefined, { numeric: true });
    };
    const sortBy = (heading, index) => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      for (const other of heading.parentNode.cells) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      rows.sort((a, b) => {
        const [x, y] = [a.cells[index], b.cells[index]];
        const unknown = [x, y].map((cell) => cell.textContent.trim() === "");
        if (unknown[0] || unknown[1]) return unknown[0] - unknown[1];
        return down ? compare(y, x) : compare(x, y);
      });
      body.append(...rows);
    };
    [...table.tHead.rows[0].cells].forEach((heading, index) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = heading.textContent;
      heading.replaceChildren(button);
      button.addEventListener("click", () => sortBy(heading, index));
    });

    const words = ordered.map((row) =>
      [...row.cells].map((cell) => cell.textContent + " " + (cell.querySelector("[title]")?.title ?? "")).join(" ").toLowerCase());
    const filter = () => {
      const wanted = byId("layer-search").value.trim().toLowerCase();
      const name = byId("layer-row").value;
      let shown = 0;
      ordered.forEach((row, i) => {
        row.hidden = !(words[i].includes(wanted) && (name === "" || row.dataset.row === name));
        shown += !row.hidden;
      });
      byId("layer-count").textContent = `${shown} of ${rows.length} shown`;
      table.classList.toggle("of-one", name !== "");
    };
    byId("layer-search").addEventListener("input", filter);
    byId("layer-row").addEventListener("change", filter);
    byId("layer-tools").addEventListener("submit", (event) => event.preventDefault());
    byId("layer-tools").hidden = false;
    filter();

    // On paper: the first of the rows that are shown.
    addEventListener("beforeprint", () => {
      table.classList.add("counted");
      [...body.rows].filter((row) => !row.hidden).forEach((row, i) => row.classList.toggle("beyond", i >= 40));
    });
  }

  // --- the data, saved without any network ---
  const download = byId("download");
  download.hidden = false;
  byId("no-download").hidden = true;
  const unpacked = (text) => {
    const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).blob();
  };
  download.addEventListener("click", async () => {
    const { type, textContent } = byId("data");
    const blob = type === "application/json" ? new Blob([textContent]) : await unpacked(textContent);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = "precisionbench.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  });

  // --- on paper, nothing stays folded ---
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const folded of opened) folded.open = true;
  });
  addEventListener("afterprint", () => {
    for (const folded of opened) folded.open = false;
  });
})();
