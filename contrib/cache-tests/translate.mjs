// Names and bodies on both sides of larder. The suite requests `/test/UUID`; larder has a crate `t-UUID` instead, whose
// index entry is one line of JSON. The line carries the header fields and the body of the suite's origin.

/** The address below the index of the entry that stands for a test. */
export function indexPath (uuid) {
  const name = `t-${uuid}`
  return `/${name.slice(0, 2)}/${name.slice(2, 4)}/${name}`
}

/** The test that a path below the index stands for, or undefined. */
export function uuidOfIndexPath (path) {
  const uuid = path.match(/\/t-([0-9a-f-]{36})$/)?.[1]
  return uuid !== undefined && indexPath(uuid) === path ? uuid : undefined
}

/** A valid index entry with the origin's response. `fields` are names and values in turn, as node has them. */
export function wrap (uuid, fields, body) {
  const line = {
    name: `t-${uuid}`,
    vers: '1.0.0',
    deps: [],
    cksum: '0'.repeat(64),
    features: {},
    yanked: false,
    origin: { fields, body }
  }
  return `${JSON.stringify(line)}\n`
}

/** The `fields` and the `body` in an index entry. */
export function unwrap (entry) {
  return JSON.parse(entry).origin
}

/** The pairs in a list of names and values in turn, without those for which `omitted` has the name in lower case. */
export function without (fields, omitted) {
  const left = []
  for (let at = 0; at < fields.length; at += 2) {
    if (!omitted.has(fields[at].toLowerCase())) left.push(fields[at], fields[at + 1])
  }
  return left
}

/** The value of the first field with this name in lower case, or undefined. */
export function valueOf (fields, name) {
  const at = fields.findIndex((field, at) => at % 2 === 0 && field.toLowerCase() === name)
  return at === -1 ? undefined : fields[at + 1]
}

/** An entity tag without the mark of a weak one. */
export function opaqueTag (tag) {
  return tag.replace(/^W\//, '')
}

/** The members of `If-None-Match`, with each tag for which `tags` has another one replaced. */
export function translateTags (list, tags) {
  return list.replace(/(W\/)?("[^"]*"|[^",\s]+)/g, (_, weak, tag) => (weak ?? '') + (tags.get(tag) ?? tag))
}
