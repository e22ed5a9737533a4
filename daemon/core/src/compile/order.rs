//! `orderBy`: what comes first. Numbers, and texts that are numbers, by their value; then other texts; last what has
//! no value. Where that leaves two nodes equal, their names decide.

use std::cmp::Ordering;

use lockstep_apis::v1alpha::{Value, value::Kind};

use super::{AdmissionNode, Rejection, targets};
use crate::expression::{Expression, operators};

/// A node's place in the order.
#[derive(Clone, Debug, PartialEq)]
enum Rank {
    Number(f64),
    Text(String),
    /// A missing label, null, or facts that the node never said.
    Absent,
}

impl Rank {
    fn of(value: &Value) -> Result<Rank, String> {
        Ok(match &value.kind {
            None | Some(Kind::Null(_)) => Rank::Absent,
            Some(Kind::Boolean(truth)) => Rank::Number(f64::from(u8::from(*truth))),
            Some(Kind::Integer(number)) => Rank::Number(*number as f64),
            Some(Kind::Number(number)) => Rank::Number(*number),
            Some(Kind::Text(text)) if text.is_empty() => Rank::Absent,
            // Labels are texts: "10" comes after "9".
            Some(Kind::Text(text)) => match text.parse::<f64>().ok().filter(|number| number.is_finite()) {
                Some(number) => Rank::Number(number),
                None => Rank::Text(text.clone()),
            },
            Some(Kind::List(_) | Kind::Map(_)) => return Err(operators::described(value)),
        })
    }

    fn class(&self) -> u8 {
        match self {
            Rank::Number(_) => 0,
            Rank::Text(_) => 1,
            Rank::Absent => 2,
        }
    }

    fn compare(&self, other: &Rank) -> Ordering {
        match (self, other) {
            (Rank::Number(a), Rank::Number(b)) => a.total_cmp(b),
            (Rank::Text(a), Rank::Text(b)) => a.cmp(b),
            _ => self.class().cmp(&other.class()),
        }
    }
}

/// Sorts nodes that are in order of name, each with something of the caller's. Without an expression they stay as they
/// are.
pub(super) fn sort<T>(source: &str, nodes: &mut Vec<(AdmissionNode<'_>, T)>) -> Result<(), Rejection> {
    if source.is_empty() {
        return Ok(());
    }
    let expression = Expression::parse(source)
        .map_err(|error| Rejection::new("InvalidOrderBy", format!("`orderBy: {source}`: {error}")))?;
    let mut ranked = Vec::with_capacity(nodes.len());
    for (node, own) in nodes.drain(..) {
        ranked.push((rank(&expression, &node)?, node, own));
    }
    // Stable: equals stay in order of name.
    ranked.sort_by(|(a, ..), (b, ..)| a.compare(b));
    nodes.extend(ranked.into_iter().map(|(_, node, own)| (node, own)));
    Ok(())
}

fn rank(expression: &Expression, node: &AdmissionNode<'_>) -> Result<Rank, Rejection> {
    let wrong = |why: String| {
        let (source, name) = (expression.source(), targets::name(node));
        Rejection::new("InvalidOrderBy", format!("`orderBy: {source}` puts the node `{name}` nowhere: {why}"))
    };
    match targets::on_node(expression, node) {
        None => Ok(Rank::Absent),
        Some(Err(error)) => Err(wrong(error.to_string())),
        Some(Ok(value)) => {
            Rank::of(&value).map_err(|found| wrong(format!("it is {found}, and must be a number or a text")))
        }
    }
}
