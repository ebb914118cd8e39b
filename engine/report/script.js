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
