//! Many names in little room: `web[1-12,15] db1`. Knows text; the longest lists are cut, and it is said by how much.

/// Up to so many names are written out, each by itself: they can be read, and searched for.
const WRITTEN_OUT: usize = 3;

/// Most ranges and single names in a list.
const PARTS: usize = 12;

/// The names in their order, those that differ in one number only as a range of it.
pub(crate) fn compact(names: &[&str]) -> String {
    if names.len() <= WRITTEN_OUT {
        return names.join(" ");
    }
    let mut parsed: Vec<Parsed<'_>> = names.iter().map(|name| Parsed::of(name)).collect();
    parsed.sort();
    parsed.dedup();
    let mut parts: Vec<(String, usize)> = Vec::new();
    for family in parsed.chunk_by(|a, b| a.family() == b.family()) {
        parts.push((shown(family), family.len()));
    }
    let more: usize = parts.iter().skip(PARTS).map(|(_, count)| count).sum();
    let tail = if more > 0 { format!(" and {more} more") } else { String::new() };
    let shown: Vec<&str> = parts.iter().take(PARTS).map(|(text, _)| text.as_str()).collect();
    shown.join(" ") + &tail
}

/// `web` `07` `.example`: the last number of the name's first label, and what is around it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Parsed<'n> {
    before: &'n str,
    after: &'n str,
    /// Digits, with as many zeros in front as are written: `7` and `07` are no neighbours.
    width: usize,
    number: Option<u64>,
}

impl<'n> Parsed<'n> {
    fn of(name: &'n str) -> Parsed<'n> {
        let label = name.split('.').next().unwrap_or(name);
        let end = label.trim_end_matches(|c: char| !c.is_ascii_digit()).len();
        let begin = label[..end].trim_end_matches(|c: char| c.is_ascii_digit()).len();
        let digits = &name[begin..end];
        // What has a zero in front keeps its width; others are of any.
        let width = if digits.len() > 1 && digits.starts_with('0') { digits.len() } else { 0 };
        match digits.parse() {
            Ok(number) => Parsed { before: &name[..begin], after: &name[end..], width, number: Some(number) },
            Err(_) => Parsed { before: name, after: "", width: 0, number: None },
        }
    }

    /// What those have in common that may stand in one pair of brackets.
    fn family(&self) -> (&str, &str, usize, bool) {
        (self.before, self.after, self.width, self.number.is_some())
    }
}

fn shown(family: &[Parsed<'_>]) -> String {
    let Some(first) = family.first() else { return String::new() };
    let numbers: Vec<u64> = family.iter().filter_map(|name| name.number).collect();
    let digits = |number: u64| format!("{number:0width$}", width = first.width);
    let ranges: Vec<String> = numbers
        .chunk_by(|a, b| a + 1 == *b)
        .map(|range| match range {
            [one] => digits(*one),
            [from, .., to] => format!("{}-{}", digits(*from), digits(*to)),
            [] => String::new(),
        })
        .collect();
    match (numbers.len(), ranges.as_slice()) {
        (0, _) => first.before.to_owned(),
        (1, [one]) => format!("{}{one}{}", first.before, first.after),
        _ => format!("{}[{}]{}", first.before, ranges.join(","), first.after),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compacted(names: &str) -> String {
        compact(&names.split(' ').collect::<Vec<_>>())
    }

    #[test]
    fn names_that_differ_in_a_number_are_a_range() {
        assert_eq!(compacted("web1 web2 web3"), "web1 web2 web3");
        assert_eq!(compacted("web10 web2 web1 web3 db"), "db web[1-3,10]");
        assert_eq!(compacted("h1.a.org h2.a.org h3.a.org h3.b.org"), "h[1-3].a.org h3.b.org");
        assert_eq!(compacted("n08 n09 n10 n7 n8"), "n[7-8,10] n[08-09]");
        assert_eq!(compacted("a b c d"), "a b c d");
        assert_eq!(compacted("r1-a r2-a r3-a r9-b"), "r[1-3]-a r9-b");
        assert_eq!(compacted("99999999999999999999999 a b c"), "99999999999999999999999 a b c");
    }

    #[test]
    fn a_list_that_is_too_long_says_how_many_are_left_out() {
        let names: Vec<String> = (0..100u8).map(|n| format!("{}{}", char::from(b'a' + n % 20), n / 20)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(
            compact(&names),
            "a[0-4] b[0-4] c[0-4] d[0-4] e[0-4] f[0-4] g[0-4] h[0-4] i[0-4] j[0-4] k[0-4] l[0-4] and 40 more"
        );
    }
}
