// Reloads a page that `engine report --serve` has made, when it would make another; not while its reader fills in the search.
(() => {
  const shown = document.currentScript.dataset.stamp, title = document.title
  const ask = async () => {
    try {
      const answer = await fetch("/stamp"), stamp = await answer.text()
      document.title = title
      if (answer.ok && stamp !== shown && !document.querySelector("form:focus-within")) return location.reload()
    } catch { document.title = `ended: ${title}` }
    setTimeout(ask, 2000)
  }
  setTimeout(ask, 2000)
})()
