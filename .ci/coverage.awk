# Turns lcov lines into one page, and target/coverage/summary. See `coverage`, which calls it.

function escaped(text) {
  gsub(/&/, "\\&amp;", text)
  gsub(/</, "\\&lt;", text)
  gsub(/>/, "\\&gt;", text)
  return text
}

# Reads a file's source, marks its lines, and adds it to the totals.
function finish(   line, number, class, code, path, inside_tests) {
  path = substr(source, length(root) + 1)
  if (index(source, root "src/") != 1 || path ~ /(^|\/)tests(\/|\.rs$)/) return
  number = inside_tests = found = hit = 0
  code = ""
  while ((getline line < source) > 0) {
    number++
    if (line ~ /^mod tests \{/) inside_tests = 1
    class = ""
    if (!inside_tests && number in count) {
      found++
      if (count[number] > 0) { hit++; class = "hit" } else class = "missed"
    }
    code = code "<span class=\"" class "\">" sprintf("%5d  ", number) escaped(line) "</span>\n"
  }
  close(source)
  if (!found) return
  all_found += found
  all_hit += hit
  # Concatenated, as mawk's sprintf takes 8 KiB at most.
  pages = pages "<details><summary><b>" sprintf("%5.1f", 100 * hit / found) " %</b> of " found " lines: " path \
    "</summary><pre>" code "</pre></details>\n"
}

/^SF:/ { source = substr($0, 4); split("", count) }
/^DA:/ { split(substr($0, 4), part, ","); if (!(part[1] in count) || part[2] > count[part[1]]) count[part[1]] = part[2] }
/^end_of_record/ { finish() }

END {
  if (!all_found) { print "coverage: no lines of src/ in the profile" > "/dev/stderr"; exit 1 }
  percent = 100 * all_hit / all_found
  verdict = percent >= min ? "enough" : "TOO FEW"
  summary = sprintf("%.1f %% of %d lines of src/ (at least %d %%): %s", percent, all_found, min, verdict)
  print summary > "target/coverage/summary"
  print "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Coverage</title><style>"
  print ":root{color-scheme:light dark}body{font:14px sans-serif;margin:2em}pre{font:12px monospace;margin:.5em 0}"
  print "summary{cursor:pointer;font-family:monospace}.missed{background:#d3303066}.hit{background:#2ea04326}</style>"
  print "<h1>Coverage</h1><p>" summary "</p>"
  print pages
}
