// Reloads a page that `engine report --serve` has made, when it would make another; not while its reader fills in the search.
(() => {
  const shown = document.currentScript.dataset.stamp
  const ask = async () => {
    try {
      const stamp = await (await fetch("/stamp")).text()
      if (stamp !== shown && !document.querySelector("form:focus-within")) return location.reload()
    } catch { document.title = document.title.replace(/^(ended: )?/, "ended: ") }
    setTimeout(ask, 2000)
  }
  setTimeout(ask, 2000)
})()
