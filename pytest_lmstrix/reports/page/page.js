(() => {
  const section = document.getElementById('lmstrix')
  const tip = document.getElementById('lmstrix-tip')
  const byId = (id) => document.getElementById(id)

  // Tooltips of the map.
  const show = ({ target }) => {
    const cell = target.closest('[data-tip]')
    tip.hidden = !cell
    if (!cell) return
    tip.textContent = cell.getAttribute('aria-label')
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

  // The table of models: filters, order, and the details of a model.
  const table = byId('lmstrix-models')
  const bodies = table ? [...table.tBodies] : []
  const first = 10
  let all = bodies.length <= 2 * first
  const chosen = (id) => byId(id)?.value ?? ''
  const matches = (body, words, kind, host, tag) =>
    words.every((word) => body.rows[0].textContent.toLowerCase().includes(word)) &&
    (!kind || (kind === 'changed' ? 'c' in body.dataset : body.dataset.s === kind)) &&
    (!host || body.dataset.h === host) &&
    (!tag || (body.dataset.t ?? '').split('\n').includes(tag))
  const filter = () => {
    const words = chosen('lmstrix-find').toLowerCase().split(/\s+/)
    const kind = section.querySelector('[name=lmstrix-show]:checked')?.value
    const found = [...table.tBodies].filter((body) =>
      matches(body, words, kind, chosen('lmstrix-host'), chosen('lmstrix-tag')))
    const shown = new Set(all ? found : found.slice(0, first))
    bodies.forEach((body) => { body.hidden = !shown.has(body) })
    byId('lmstrix-count').textContent = `${found.length} of ${bodies.length} models`
    const rest = byId('lmstrix-all')
    rest.parentElement.hidden = shown.size === found.length
    rest.textContent = `Show all ${found.length}`
  }
  const order = { not_at_all: 0, below: 1, unknown: 2, as_tested: 3, declared: 4 }
  const value = (body, place, kind) => {
    const text = body.rows[0].cells[place].textContent.trim()
    if (kind === 'standing') return order[body.dataset.s]
    if (kind !== 'number') return text === '-' ? null : text.toLowerCase()
    return text === '-' ? null : parseFloat(text.replaceAll(',', ''))
  }
  const sort = (heading) => {
    const place = heading.cellIndex
    const kind = heading.querySelector('button').dataset.sort
    const down = heading.getAttribute('aria-sort') === 'ascending' ? -1 : 1
    const keys = new Map(bodies.map((body) => [body, value(body, place, kind)]))
    const sorted = [...table.tBodies].sort((one, other) => {
      const [a, b] = [keys.get(one), keys.get(other)]
      if (a === null || b === null) return (a === null) - (b === null)
      return a < b ? -down : a > b ? down : 0
    })
    table.querySelectorAll('th[aria-sort]').forEach((each) => each.setAttribute('aria-sort', 'none'))
    heading.setAttribute('aria-sort', down === 1 ? 'ascending' : 'descending')
    table.append(...sorted)
    filter()
  }
  const unpack = async (holder) => {
    const packed = holder.dataset.packed
    if (!packed) return
    delete holder.dataset.packed
    const bytes = Uint8Array.from(atob(packed), (each) => each.charCodeAt(0))
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'))
    holder.innerHTML = await new Response(stream).text()
  }
  let unpacked
  const open = async (body, isOpen) => {
    body.classList.toggle('open', isOpen)
    body.querySelector('th button').setAttribute('aria-expanded', isOpen)
    if (body.rows.length > 1) return
    const cell = body.insertRow().insertCell()
    cell.colSpan = table.tHead.rows[0].cells.length
    cell.parentElement.className = 'more'
    unpacked ??= unpack(byId('lmstrix-details'))
    await unpacked
    const details = byId(`${body.id}-details`)
    details.querySelector('summary').remove()
    cell.append(...details.childNodes)
    details.remove()
  }
  const map = section.querySelector('.map')
  map?.addEventListener('toggle', () => unpack(map.querySelector('div')))
  const reveal = (id) => {
    const body = byId(id)
    if (!body || !bodies.includes(body)) return
    if (body.hidden) {
      section.querySelector('.find').reset()
      filter()
      body.hidden = false
    }
    open(body, true)
    body.querySelector('th button').focus({ preventScroll: true })
    body.scrollIntoView({ block: 'start' })
  }
  if (table) {
    for (const kind of ['input', 'change']) section.querySelector('.find').addEventListener(kind, filter)
    section.querySelector('.find').addEventListener('submit', (event) => event.preventDefault())
    byId('lmstrix-all').addEventListener('click', () => { all = true; filter() })
    table.tHead.addEventListener('click', ({ target }) => {
      const button = target.closest('button')
      if (button) sort(button.closest('th'))
    })
    table.addEventListener('click', ({ target }) => {
      const button = target.closest('tbody th > button')
      if (button) open(button.closest('tbody'), button.getAttribute('aria-expanded') !== 'true')
    })
    filter()
  }

  // pytest-html's own table comes last, closed.
  const tests = document.createElement('details')
  tests.id = 'lmstrix-tests'
  tests.innerHTML = '<summary>All tests</summary>'
  document.addEventListener('DOMContentLoaded', () => {
    const parts = ['#lmstrix-end', '.run-count', 'p.filter', '.controls', '.additional-summary.summary',
      '.additional-summary.postfix', '#results-table', '#title + p', '#environment-header', '#environment']
    byId('results-table').before(tests)
    tests.append(...parts.map((part) => document.querySelector(part)).filter(Boolean))
    if (location.hash) go(location.hash.slice(1))
  })

  // A test that the filters have taken away, or whose details are folded, is brought back first.
  const row = (id) => byId(id)?.closest('tr')
  const go = (id) => {
    if (/^m\d+$/.test(id)) return reveal(id)
    if (id === 'lmstrix-end') tests.open = true
    if (!id.startsWith('case-')) return
    tests.open = true
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
  }
  section.addEventListener('click', (event) => {
    const link = event.target.closest('a[href^="#case-"], a[href^="#m"]')
    if (!link) {
      if (event.target.closest('.lmstrix-skip')) tests.open = true
      return
    }
    event.preventDefault()
    history.replaceState(null, '', link.hash)
    go(link.hash.slice(1))
  })
})()
