// Search and filter of the sample answers. Without scripts the form stays hidden, and the folds hold all rows.
(() => {
  const form = document.querySelector("form.filter")
  if (!form) return
  const { search, task, model } = form.elements
  const rows = [...document.querySelectorAll("figure.answer")]
  const texts = rows.map(row => row.textContent.toLowerCase())
  const folds = [...document.querySelectorAll("details.more")]
  let filtered = false
  const fits = (row, text, words) => {
    const differing = row.dataset.differs.split(" ").filter(Boolean)
    return (!task.value || row.dataset.task === task.value)
      && (!model.value || (model.value === "any" ? differing.length > 0 : differing.includes(model.value)))
      && words.every(word => text.includes(word))
  }
  const show = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean), before = filtered
    filtered = words.length > 0 || task.value !== "" || model.value !== ""
    rows.forEach((row, number) => { row.hidden = !fits(row, texts[number], words) })
    for (const fold of folds) {
      fold.hidden = !fold.querySelector("figure.answer:not([hidden])")
      if (filtered !== before) fold.open = filtered
    }
    form.querySelector("output").textContent = `${rows.filter(row => !row.hidden).length} of ${rows.length} rows`
  }
  form.addEventListener("input", show)
  form.addEventListener("reset", () => setTimeout(show))
  form.addEventListener("submit", event => event.preventDefault())
  form.hidden = false
  show()
})()

// Values of loss curves at the step nearest to the pointer.
for (const svg of document.querySelectorAll("svg[data-plot]")) {
  const plot = JSON.parse(svg.dataset.plot), shown = 8
  const height = plot.bottom - plot.top, width = plot.right - plot.left
  const step = x => plot.x[0] + (x - plot.left) / width * (plot.x[1] - plot.x[0])
  const value = y => {
    const share = (plot.bottom - y) / height, [low, high] = plot.y
    return plot.log ? low * (high / low) ** share : low + share * (high - low)
  }
  const curves = plot.curves.map(({ id, label, colour }) => {
    const numbers = document.getElementById(id).querySelector("path").getAttribute("d").match(/-?[\d.]+(e-?\d+)?/g).map(Number)
    return { label, colour, points: numbers.flatMap((x, place) => place % 2 ? [] : [[x, numbers[place + 1]]]) }
  })
  const nearest = ({ points }, x) => {
    let first = 0, last = points.length - 1
    while (last - first > 1) {
      const middle = (first + last) >> 1
      if (points[middle][0] < x) first = middle; else last = middle
    }
    return x - points[first][0] < points[last][0] - x ? points[first] : points[last]
  }
  const marker = svg.appendChild(document.createElementNS(svg.namespaceURI, "line"))
  for (const [name, set] of [["y1", plot.top], ["y2", plot.bottom], ["stroke", "currentColor"], ["stroke-dasharray", "2 2"], ["opacity", 0]])
    marker.setAttribute(name, set)
  const readout = svg.closest("figure").appendChild(document.createElement("div"))
  readout.className = "readout"
  readout.hidden = true
  const hide = () => { readout.hidden = true; marker.setAttribute("opacity", 0) }
  svg.addEventListener("pointerleave", hide)
  svg.addEventListener("pointermove", event => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse())
    if (at.x < plot.left || at.x > plot.right || at.y < plot.top || at.y > plot.bottom) return hide()
    const all = curves.map(curve => nearest(curve, at.x)[0])
    const x = all.reduce((best, one) => Math.abs(one - at.x) < Math.abs(best - at.x) ? one : best)
    // A curve that has ended has no value here.
    const near = curves.map(curve => ({ ...curve, point: nearest(curve, x) })).filter(({ point }) => Math.abs(point[0] - x) < width / 50)
    near.sort((a, b) => Math.abs(a.point[1] - at.y) - Math.abs(b.point[1] - at.y))
    for (const end of ["x1", "x2"]) marker.setAttribute(end, x)
    marker.setAttribute("opacity", 0.6)
    const lines = near.slice(0, shown).map(({ label, colour, point }) => {
      const line = document.createElement("div"), mark = line.appendChild(document.createElement("span"))
      mark.style.background = colour
      line.append(`${label}: ${value(point[1]).toPrecision(4)}`)
      return line
    })
    const head = document.createElement("div")
    head.textContent = `step ${Math.round(step(x))}` + (near.length > shown ? `, the ${shown} nearest of ${near.length}` : "")
    readout.replaceChildren(head, ...lines)
    readout.hidden = false
    const frame = readout.parentElement.getBoundingClientRect(), left = event.clientX - frame.left + 16
    readout.style.top = `${event.clientY - frame.top + 12}px`
    readout.style.left = `${Math.max(0, Math.min(left, frame.width - readout.offsetWidth))}px`
  })
}
