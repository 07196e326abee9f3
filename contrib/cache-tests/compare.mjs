// Judges verdicts. Each has the form `{ kind, larder, nginx, argued }`; `argued` is a row of the table in
// docs/promises.md that says why larder does not pass.

/** Counts for people. */
export function summary (results, total) {
  const all = Object.values(results)
  const count = is => all.filter(is).length
  const lines = ['required', 'optimal', 'check'].map(kind => {
    const of = (name, verdict) => count(result => result.kind === kind && result[name] === verdict)
    const text = name => `${name} ${of(name, 'pass')} pass, ${of(name, 'fail')} fail, ${of(name, 'setup')} setup`
    return `${kind.padEnd(8)} ${text('larder')}; ${text('nginx')}`
  })
  const worse = count(result => result.larder !== 'pass' && result.nginx === 'pass')
  const better = count(result => result.larder === 'pass' && result.nginx !== 'pass')
  lines.push(`${all.length} of ${total} tests judged; larder alone passes ${better}, nginx alone ${worse}`)
  return lines.join('\n')
}

/**
 * The differences between stored and new verdicts. Those of larder are `failures`, with the suite's reason from
 * `details`. Those of nginx are `notes`: its version is the machine's.
 */
export function findings (stored, results, details) {
  const notes = []
  const failures = []
  for (const id of new Set([...Object.keys(stored), ...Object.keys(results)])) {
    const [was, is] = [stored[id], results[id]]
    if (is === undefined || was === undefined) {
      failures.push(`${id}: ${is === undefined ? 'not run any more' : 'new'}`)
      continue
    }
    if (was.larder !== is.larder) {
      failures.push(`${id}: larder was ${was.larder}, is ${is.larder} ${details[id].reason ?? ''}`.trimEnd())
    } else if (is.larder !== 'pass' && is.kind !== 'check' && was.argued === undefined) {
      failures.push(`${id}: larder ${is.larder} without \`argued\` (${details[id].reason})`)
    }
    if (was.nginx !== is.nginx) notes.push(`${id}: nginx was ${was.nginx}, is ${is.nginx}`)
  }
  return { notes, failures }
}
