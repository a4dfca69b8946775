// Tables sort by a click on a title and show the rows that hold what is typed; charts tell the value nearest the pointer.
const numeral = /-?(\d[\d,]*)?\.?\d+(e[-+]?\d+)?/i;
function valueOf(row, column) {
  const text = row.cells[column].textContent.trim();
  const number = text.replace("\u2212", "-").match(numeral);
  return [number ? parseFloat(number[0].replaceAll(",", "")) : NaN, text];
}
function compare([a, textA], [b, textB]) {
  return isNaN(a) || isNaN(b) ? isNaN(a) - isNaN(b) || textA.localeCompare(textB) : a - b;
}
for (const table of document.querySelectorAll(".scroll table")) {
  const body = table.tBodies[0], titles = [...table.tHead.rows[0].cells], rows = [...body.rows];
  const blocks = [];  // a heading, if any, and the rows below it
  for (const row of rows) {
    if (row.className === "group" || !blocks.length) blocks.push([]);
    blocks.at(-1).push(row);
  }
  const isRow = row => row.className !== "group";
  titles.forEach((title, column) => {
    const sort = () => {
      const down = title.ariaSort === "ascending";
      titles.forEach(other => { other.ariaSort = null; });
      title.ariaSort = down ? "descending" : "ascending";
      for (const block of blocks) {
        const sorted = block.filter(isRow).sort((a, b) =>
          (down ? -1 : 1) * compare(valueOf(a, column), valueOf(b, column)));
        body.append(...block.filter(row => !isRow(row)), ...sorted);
      }
    };
    title.tabIndex = 0;
    title.onclick = sort;
    title.onkeydown = event => { if (event.key === "Enter") sort(); };
  });
  if (rows.length < 6) continue;
  const filter = document.createElement("input");
  filter.type = "search";
  filter.placeholder = filter.ariaLabel = "show rows with ...";
  filter.oninput = () => {
    const words = filter.value.toLowerCase().split(/\s+/);
    for (const block of blocks) {
      const heading = block.filter(row => !isRow(row)).map(row => row.textContent).join(" ");
      for (const row of block.filter(isRow)) {
        const text = `${heading} ${row.textContent}`.toLowerCase();
        row.hidden = !words.every(word => text.includes(word));
      }
      for (const row of block) if (!isRow(row)) row.hidden = block.filter(isRow).every(one => one.hidden);
    }
  };
  table.parentElement.before(filter);
}
const tip = document.createElement("div");
tip.id = "tip";
tip.hidden = true;
document.body.append(tip);
for (const picture of document.querySelectorAll("img[data-points]")) {
  const points = JSON.parse(picture.dataset.points || "[]");
  picture.onmouseleave = () => { tip.hidden = true; };
  picture.onmousemove = event => {
    const box = picture.getBoundingClientRect(), edge = 7, reach = 25;  // border and padding of style.css
    const width = box.width - 2 * edge, height = box.height - 2 * edge;
    const away = ([x, y]) => Math.hypot(
      box.left + edge + x * width - event.clientX, box.top + edge + y * height - event.clientY);
    const nearest = points.reduce((best, point) => away(point) < away(best) ? point : best, points[0]);
    tip.hidden = !nearest || away(nearest) > reach;
    if (tip.hidden) return;
    tip.textContent = nearest[2];
    tip.style.left = `${box.left + scrollX + edge + nearest[0] * width}px`;
    tip.style.top = `${box.top + scrollY + edge + nearest[1] * height}px`;
  };
}
