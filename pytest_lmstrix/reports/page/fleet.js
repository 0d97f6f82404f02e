(() => {
  const section = document.getElementById('lmstrix')
  const tip = document.getElementById('lmstrix-tip')

  const show = ({ target }) => {
    const cell = target.closest('[data-tip]')
    tip.hidden = !cell
    if (!cell) return
    tip.textContent = cell.dataset.tip
    const at = cell.getBoundingClientRect()
    const left = Math.min(at.left, innerWidth - tip.offsetWidth - 8)
    const below = at.bottom + 6
    const fits = below + tip.offsetHeight < innerHeight
    tip.style.left = `${Math.max(8, left)}px`
    tip.style.top = `${fits ? below : Math.max(8, at.top - tip.offsetHeight - 6)}px`
  }
  const hide = () => { tip.hidden = true }
  section.addEventListener('mouseover', show)
  section.addEventListener('focusin', show)
  section.addEventListener('mouseleave', hide)
  section.addEventListener('focusout', hide)
  document.addEventListener('scroll', hide, true)
  document.addEventListener('keydown', ({ key }) => key === 'Escape' && hide())

  // A row that the filters have taken away, or whose details are folded, is brought back first.
  const row = (id) => document.getElementById(id)?.closest('tr')
  section.addEventListener('click', (event) => {
    const link = event.target.closest('a[href^="#case-"]')
    if (!link) return
    event.preventDefault()
    const id = link.hash.slice(1)
    if (!row(id)) {
      document.querySelectorAll('input.filter:not(:checked):not(:disabled)').forEach((box) => box.click())
    }
    const cell = row(id)?.querySelector('.col-result')
    if (cell?.classList.contains('collapsed')) cell.click()
    const found = row(id)
    if (!found) return
    document.querySelectorAll('.lmstrix-here').forEach((old) => old.classList.remove('lmstrix-here'))
    found.classList.add('lmstrix-here')
    found.tabIndex = -1
    found.focus({ preventScroll: true })
    found.scrollIntoView({ block: 'center' })
    hide()
    history.replaceState(null, '', link.hash)
  })

  document.getElementById('lmstrix-find')?.addEventListener('input', ({ target }) => {
    const words = target.value.toLowerCase().split(/\s+/)
    document.querySelectorAll('#lmstrix-map tbody tr').forEach((line) => {
      const model = line.querySelector('th').textContent.toLowerCase()
      line.hidden = !words.every((word) => model.includes(word))
    })
  })
})()
