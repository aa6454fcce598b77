// Tables whose headings sort them; the report and the leaderboard share it.

const byId = (id) => document.getElementById(id);

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

const numeric = (score) => (score === "inf" ? Infinity : Number(score));

// Negative, zero or positive; missing scores (null) come last in either direction.
function compare(a, b, descending) {
  if (a === null || b === null) return (a === null) - (b === null);
  const order = typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a < b ? -1 : a > b ? 1 : 0;
  return descending ? -order : order;
}

function makeSortable(table) {
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  heads.forEach((head, column) => {
    const button = element("button", { type: "button", textContent: head.textContent });
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      // the first click shows the best on top
      const descending = before ? before === "ascending" : head.dataset.better === "higher";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const value = (row) => {
        const cell = row.cells[column];
        if (!head.dataset.better) return cell.textContent === "-" ? null : cell.textContent;
        return "value" in cell.dataset ? numeric(cell.dataset.value) : null;
      };
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => compare(value(a), value(b), descending));
      table.tBodies[0].append(...rows);
    });
  });
}

makeSortable(byId("scores"));
