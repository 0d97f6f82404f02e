"use strict";
(() => {
  const form = document.querySelector(".filter");
  if (!form) return;
  const rows = [...document.querySelectorAll(".models tbody tr")];
  const texts = rows.map((row) =>
    [row.cells[0], row.cells[2], ...row.querySelectorAll("[title]")]
      .map((cell) => cell.title || cell.textContent).join(" ").toLowerCase());
  const [text, failing, changing] = ["text", "failing", "changing"].map((id) => document.getElementById(id));
  const shown = document.getElementById("shown");
  const filter = () => {
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    rows.forEach((row, place) => {
      const fits = words.every((word) => texts[place].includes(word))
        && (!failing.checked || "bad" in row.dataset) && (!changing.checked || "changed" in row.dataset);
      row.hidden = !fits;
      count += fits;
    });
    shown.textContent = `${count} of ${rows.length} shown`;
  };
  form.hidden = false;
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  filter();
})();
