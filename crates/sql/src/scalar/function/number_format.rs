//! `to_char` over numbers, and `to_number`: templates such as `FM999,990.00`.
//!
//! The walk over the template follows PostgreSQL's `formatting.c` step by step, because where
//! blanks, signs and zeros go is defined by nothing else.

use num_bigint::BigInt;
use rustydb_types::numeric::Numeric;

use super::to_char::ordinal;
use crate::error::{SqlError, SqlState};

#[derive(Clone, Debug, PartialEq)]
enum Node {
    Nine,
    Zero,
    Decimal,
    Comma,
    Sign,
    Minus,
    Plus,
    PlusMinus,
    Roman(bool),
    Ordinal(bool),
    Currency,
    Text(char),
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum SignPlace {
    #[default]
    None,
    Before,
    After,
}

#[derive(Debug, Default)]
struct Picture {
    nodes: Vec<Node>,
    before: usize,
    after: usize,
    has_zero: bool,
    zero_start: usize,
    zero_end: usize,
    has_decimal: bool,
    fill: bool,
    sign: SignPlace,
    own_sign: bool,
    bracket: bool,
    roman: Option<bool>,
    shift: u32,
    has_shift: bool,
    scientific: bool,
}

fn syntax(message: &str) -> SqlError {
    SqlError::new(SqlState::SYNTAX_ERROR, message)
}

fn parse(template: &str) -> Result<Picture, SqlError> {
    let mut picture = Picture::default();
    let mut rest = template;
    const KEYWORDS: [&str; 19] = [
        "EEEE", "FM", "MI", "PL", "PR", "RN", "SG", "SP", "TH", "0", "9", ",", ".", "B", "D", "G", "L", "S",
        "V",
    ];
    while let Some(c) = rest.chars().next() {
        if c == '"' {
            let body = rest.get(1..).unwrap_or("");
            let end = body.find('"').unwrap_or(body.len());
            picture.nodes.extend(body.get(..end).unwrap_or("").chars().map(Node::Text));
            rest = body.get((end + 1).min(body.len())..).unwrap_or("");
            continue;
        }
        let keyword = KEYWORDS
            .iter()
            .find(|keyword| rest.get(..keyword.len()).is_some_and(|head| head.eq_ignore_ascii_case(keyword)));
        let Some(keyword) = keyword else {
            picture.nodes.push(Node::Text(c));
            rest = rest.get(c.len_utf8()..).unwrap_or("");
            continue;
        };
        let written_lower = c.is_ascii_lowercase();
        rest = rest.get(keyword.len()..).unwrap_or("");
        if picture.scientific && !matches!(*keyword, "FM" | "TH") {
            return Err(syntax("\"EEEE\" must be the last pattern used"));
        }
        match *keyword {
            "9" | "0" => {
                if picture.bracket {
                    return Err(syntax("\"9\" must be ahead of \"PR\""));
                }
                if picture.has_shift {
                    picture.shift += 1;
                } else if picture.has_decimal {
                    picture.after += 1;
                } else {
                    picture.before += 1;
                }
                if *keyword == "0" {
                    let at = picture.before + picture.after + picture.shift as usize;
                    if !picture.has_zero && !picture.has_decimal {
                        picture.has_zero = true;
                        picture.zero_start = picture.before;
                    }
                    picture.zero_end = at;
                    picture.nodes.push(Node::Zero);
                } else {
                    picture.nodes.push(Node::Nine);
                }
            }
            "." | "D" => {
                if picture.has_decimal {
                    return Err(syntax("multiple decimal points"));
                }
                if picture.has_shift {
                    return Err(syntax("cannot use \"V\" and decimal point together"));
                }
                picture.has_decimal = true;
                picture.nodes.push(Node::Decimal);
            }
            "," | "G" => picture.nodes.push(Node::Comma),
            "S" => {
                if picture.sign != SignPlace::None {
                    return Err(syntax("cannot use \"S\" twice"));
                }
                if picture.own_sign || picture.bracket {
                    return Err(syntax("cannot use \"S\" and \"PL\"/\"MI\"/\"SG\"/\"PR\" together"));
                }
                picture.sign = if picture.before + picture.after == 0 && !picture.has_decimal {
                    SignPlace::Before
                } else {
                    SignPlace::After
                };
                picture.nodes.push(Node::Sign);
            }
            "MI" | "PL" | "SG" => {
                if picture.sign != SignPlace::None {
                    return Err(syntax(&format!("cannot use \"S\" and \"{keyword}\" together")));
                }
                picture.own_sign = true;
                picture.nodes.push(match *keyword {
                    "MI" => Node::Minus,
                    "PL" => Node::Plus,
                    _ => Node::PlusMinus,
                });
            }
            "PR" => {
                if picture.sign != SignPlace::None || picture.own_sign {
                    return Err(syntax("cannot use \"PR\" and \"S\"/\"PL\"/\"MI\"/\"SG\" together"));
                }
                picture.bracket = true;
            }
            "RN" => {
                picture.roman = Some(written_lower);
                picture.nodes.push(Node::Roman(written_lower));
            }
            "TH" => picture.nodes.push(Node::Ordinal(!written_lower)),
            "FM" => picture.fill = true,
            "L" => picture.nodes.push(Node::Currency),
            "V" => {
                if picture.has_decimal {
                    return Err(syntax("cannot use \"V\" and decimal point together"));
                }
                picture.has_shift = true;
            }
            "EEEE" => {
                if picture.own_sign
                    || picture.bracket
                    || picture.fill
                    || picture.has_zero && picture.sign != SignPlace::None
                {
                    return Err(syntax("\"EEEE\" is incompatible with other formats"));
                }
                picture.scientific = true;
            }
            _ => {}
        }
    }
    Ok(picture)
}

/// A number by a template.
///
/// # Errors
/// 42601 for a template that contradicts itself.
pub(super) fn to_char(number: &Numeric, template: &str) -> Result<String, SqlError> {
    let text = by_picture(number, template)?;
    // Nothing stands behind its letters, so that they have no point either.
    Ok(if number.is_nan() { text.replacen("NaN.", "NaN", 1) } else { text })
}

fn by_picture(number: &Numeric, template: &str) -> Result<String, SqlError> {
    let picture = parse(template)?;
    if let Some(lower) = picture.roman {
        let roman = number.to_i64().and_then(roman).unwrap_or_else(|| "#".repeat(15));
        let roman = if lower { roman.to_lowercase() } else { roman };
        return Ok(if picture.fill { roman } else { format!("{roman:>15}") });
    }
    if picture.scientific {
        return Ok(scientific(number, &picture));
    }
    let shifted = number.mul(&Numeric::new(BigInt::from(10u8).pow(picture.shift), 0));
    let before = picture.before + picture.shift as usize;
    let rounded = shifted.round(picture.after as i64);
    let negative = rounded.is_negative();
    let digits = match rounded.abs() {
        finite @ Numeric::Finite { .. } => {
            let text = finite.to_string();
            let whole = text.split('.').next().unwrap_or("").len();
            if whole > before {
                overflow(before, &picture)
            } else if picture.after > 0 || !picture.has_decimal {
                text
            } else {
                format!("{text}.")
            }
        }
        special => {
            let text = special.to_string();
            if text.len() > before { overflow(before, &picture) } else { text }
        }
    };
    let whole = digits.split('.').next().unwrap_or("").len();
    Ok(Writer::new(&picture, digits, negative, before, before.saturating_sub(whole)).run())
}

fn overflow(before: usize, picture: &Picture) -> String {
    let hashes = "#".repeat(before);
    if picture.has_decimal { format!("{hashes}.{}", "#".repeat(picture.after)) } else { hashes }
}

struct Writer<'a> {
    picture: &'a Picture,
    digits: Vec<char>,
    negative: bool,
    spaces: usize,
    zero_start: Option<usize>,
    count: usize,
    at: usize,
    current: usize,
    sign_written: bool,
    inside: bool,
    last_relevant: Option<usize>,
    out: String,
}

impl<'a> Writer<'a> {
    fn new(picture: &'a Picture, digits: String, negative: bool, before: usize, spaces: usize) -> Writer<'a> {
        let digits: Vec<char> = digits.chars().collect();
        let last_relevant = (picture.fill && picture.has_decimal).then(|| {
            let point = digits.iter().position(|c| *c == '.').unwrap_or(digits.len());
            let mut last = point;
            for (at, digit) in digits.iter().enumerate().skip(point + 1) {
                if *digit != '0' {
                    last = at;
                }
            }
            // A digit that the template demands by 0 is never dropped; count the point itself.
            if picture.zero_end > before {
                last = last.max((point + picture.zero_end - before).min(digits.len().saturating_sub(1)));
            }
            last
        });
        let count = (before + picture.after + usize::from(picture.has_decimal)).saturating_sub(1);
        Writer {
            picture,
            digits,
            negative,
            spaces,
            zero_start: picture.has_zero.then(|| picture.zero_start.saturating_sub(1)),
            count,
            at: 0,
            current: 0,
            // PL says how a number without a sign looks; one with a sign keeps its own.
            sign_written: picture.nodes.iter().any(|node| matches!(node, Node::Minus | Node::PlusMinus)),
            inside: false,
            last_relevant,
            out: String::new(),
        }
    }

    fn run(mut self) -> String {
        let picture = self.picture;
        for node in &picture.nodes {
            match node {
                Node::Nine | Node::Zero | Node::Decimal => self.digit(node),
                Node::Comma if self.inside => self.out.push(','),
                Node::Comma if picture.fill => {}
                Node::Comma => self.out.push(' '),
                Node::Minus if self.negative => self.out.push('-'),
                Node::Minus if picture.fill => {}
                Node::Minus => self.out.push(' '),
                Node::Plus if !self.negative => self.out.push('+'),
                Node::Plus if picture.fill => {}
                Node::Plus => self.out.push(' '),
                Node::PlusMinus => self.out.push(if self.negative { '-' } else { '+' }),
                Node::Ordinal(upper) => {
                    if !self.negative && !picture.has_decimal {
                        let number: String = self.digits.iter().collect();
                        let suffix = ordinal(&number);
                        self.out.push_str(&if *upper { suffix.to_uppercase() } else { suffix.to_owned() });
                    }
                }
                Node::Currency => self.out.push(' '),
                Node::Text(c) => self.out.push(*c),
                Node::Sign | Node::Roman(_) => {}
            }
        }
        self.out
    }

    /// A zero before the point that the template leaves blank: `.5` for 0.5.
    fn blank_zero(&self) -> bool {
        self.zero_start.is_none()
            && self.at == 0
            && self.digits.first() == Some(&'0')
            && self.picture.after != 0
    }

    fn zero_due(&self) -> bool {
        self.zero_start.is_some_and(|start| start <= self.current)
    }

    fn digit(&mut self, node: &Node) {
        let picture = self.picture;
        let point_is_last =
            self.last_relevant.is_some_and(|at| self.digits.get(at).is_none_or(|c| *c == '.'));
        let number_begins = self.current >= self.spaces || self.zero_start == Some(self.current);
        if !self.sign_written && number_begins && (!self.blank_zero() || point_is_last) {
            match picture.sign {
                SignPlace::Before => {
                    self.out.push(if self.negative { '-' } else { '+' });
                    self.sign_written = true;
                }
                SignPlace::After => {}
                SignPlace::None if picture.bracket => {
                    self.out.push(if self.negative { '<' } else { ' ' });
                    self.sign_written = true;
                }
                SignPlace::None => {
                    if self.negative {
                        self.out.push('-');
                    } else if !picture.fill {
                        self.out.push(' ');
                    }
                    self.sign_written = true;
                }
            }
        }
        if self.current < self.spaces && !self.zero_due() {
            if !picture.fill {
                self.out.push(' ');
            }
        } else if self.current < self.spaces {
            self.out.push('0');
            self.inside = true;
        } else {
            let here = self.digits.get(self.at).copied();
            if here == Some('.') || here.is_none() && *node == Node::Decimal {
                if !point_is_last || picture.fill {
                    self.out.push('.');
                }
            } else if self.last_relevant.is_some_and(|last| self.at > last) && *node != Node::Zero {
                // Trailing zeros go in fill mode.
            } else if self.blank_zero() {
                if !picture.fill {
                    self.out.push(' ');
                } else if point_is_last {
                    self.out.push('0');
                }
            } else if let Some(digit) = here {
                self.out.push(digit);
                self.inside = true;
            }
            if self.at < self.digits.len() {
                self.at += 1;
            }
        }
        let last = self.current == self.count;
        if last {
            if picture.bracket && self.sign_written {
                self.out.push_str(if self.negative {
                    ">"
                } else if picture.fill {
                    ""
                } else {
                    " "
                });
            } else if picture.sign == SignPlace::After {
                self.out.push(if self.negative { '-' } else { '+' });
            }
        }
        self.current += 1;
    }
}

fn scientific(number: &Numeric, picture: &Picture) -> String {
    let Numeric::Finite { coefficient, scale } = number else {
        let width = picture.before + picture.after + 6;
        return format!("{:>width$}", "#".repeat(width.saturating_sub(1)));
    };
    let digits = coefficient.magnitude().to_string();
    let mut exponent = if digits == "0" { 0 } else { digits.len() as i64 - 1 - i64::from(*scale) };
    let power = |exponent: i64| Numeric::new(BigInt::from(10u8).pow(exponent.unsigned_abs() as u32), 0);
    let scaled = |exponent: i64| {
        let value = if exponent >= 0 {
            number.abs().mul(&Numeric::new(BigInt::from(1u8), exponent as u32))
        } else {
            number.abs().mul(&power(exponent))
        };
        value.round(picture.after as i64)
    };
    let mut mantissa = scaled(exponent);
    if mantissa >= Numeric::from(10i64) {
        exponent += 1;
        mantissa = scaled(exponent);
    }
    let sign = if number.is_negative() {
        "-"
    } else if picture.sign == SignPlace::Before {
        "+"
    } else {
        " "
    };
    let mark = if exponent < 0 { '-' } else { '+' };
    format!("{sign}{mantissa}e{mark}{:02}", exponent.abs())
}

fn roman(mut n: i64) -> Option<String> {
    const STEPS: [(i64, &str); 13] = [
        (1000, "M"),
        (900, "CM"),
        (500, "D"),
        (400, "CD"),
        (100, "C"),
        (90, "XC"),
        (50, "L"),
        (40, "XL"),
        (10, "X"),
        (9, "IX"),
        (5, "V"),
        (4, "IV"),
        (1, "I"),
    ];
    if !(1..=3999).contains(&n) {
        return None;
    }
    let mut out = String::new();
    for (value, letters) in STEPS {
        while n >= value {
            out.push_str(letters);
            n -= value;
        }
    }
    Some(out)
}

/// The number in a text laid out by a template.
///
/// # Errors
/// 22P02 when there is none.
pub(super) fn to_number(input: &str, template: &str) -> Result<Numeric, SqlError> {
    let picture = parse(template)?;
    let mut digits = String::new();
    let mut negative = false;
    let mut seen_point = false;
    let mut places = picture.before + picture.after;
    for c in input.chars() {
        match c {
            '0'..='9' => {
                if places == 0 {
                    break;
                }
                places -= 1;
                digits.push(c);
            }
            '.' if picture.has_decimal && !seen_point => {
                seen_point = true;
                digits.push('.');
            }
            '.' => break,
            '-' => negative = true,
            '<' if picture.bracket => negative = true,
            _ => {}
        }
    }
    if digits.is_empty() || digits == "." {
        return Err(SqlError::new(
            SqlState::INVALID_TEXT_REPRESENTATION,
            "invalid input syntax for type numeric: \" \"",
        ));
    }
    let number: Numeric = digits.parse()?;
    let number = if negative { number.neg() } else { number };
    if picture.shift > 0 {
        let divisor = Numeric::new(BigInt::from(10u8).pow(picture.shift), 0);
        return Ok(number.div(&divisor)?);
    }
    Ok(number)
}
