//! The date of `Expires`, read exactly as browsers read it (RFC 6265, section 5.1.1): no grammar, but the first time, day,
//! month and year among the pieces of the text. Weekday, order and zone do not matter.

/// Bytes between the pieces of a date; `:` is part of a time.
const fn is_delimiter(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'/' | b';'..=b'@' | b'['..=b'`' | b'{'..=b'~')
}

/// Seconds since 1970, negative before; `None` when the text is no date, and the attribute is ignored.
#[must_use]
pub fn parse(text: &[u8]) -> Option<i64> {
    let (mut time, mut day, mut month, mut year) = (None, None, None, None);
    for piece in text.split(|byte| is_delimiter(*byte)).filter(|piece| !piece.is_empty()) {
        // Each piece is the first that is missing of these, in this order.
        if time.is_none() && assign(&mut time, clock(piece)) {
            continue;
        }
        if day.is_none() && assign(&mut day, digits(piece, 1, 2)) {
            continue;
        }
        if month.is_none() && assign(&mut month, month_number(piece)) {
            continue;
        }
        if year.is_none() {
            assign(&mut year, digits(piece, 2, 4));
        }
    }
    let ((hour, minute, second), day, month) = (time?, day?, month?);
    let year = match year? {
        year @ 70..=99 => year + 1900,
        year @ 0..=69 => year + 2000,
        year => year,
    };
    let exists =
        year >= 1601 && (1..=days_in(month, year)).contains(&day) && hour <= 23 && minute <= 59 && second <= 59;
    exists.then(|| days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

fn assign<T>(slot: &mut Option<T>, value: Option<T>) -> bool {
    *slot = value;
    slot.is_some()
}

/// `1*2DIGIT ":" 1*2DIGIT ":" 1*2DIGIT`, then anything but another digit.
fn clock(piece: &[u8]) -> Option<(i64, i64, i64)> {
    let mut parts = piece.splitn(3, |byte| *byte == b':');
    let (hour, minute, second) = (parts.next()?, parts.next()?, parts.next()?);
    let whole = |part: &[u8]| digits(part, 1, 2).filter(|_| part.iter().all(u8::is_ascii_digit));
    Some((whole(hour)?, whole(minute)?, digits(second, 1, 2)?))
}

/// A number of `least` to `most` digits, then anything but another digit. (The RFC's grammar demands something after it;
/// erratum 4148 and every browser do not.)
fn digits(piece: &[u8], least: usize, most: usize) -> Option<i64> {
    let count = piece.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = piece.get(..count).filter(|_| (least..=most).contains(&count))?;
    Some(number.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0')))
}

fn month_number(piece: &[u8]) -> Option<i64> {
    const MONTHS: [&[u8; 3]; 12] =
        [b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"];
    let start = piece.get(..3)?;
    let index = MONTHS.iter().position(|month| start.eq_ignore_ascii_case(*month))?;
    i64::try_from(index + 1).ok()
}

const fn days_in(month: i64, year: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Of the Gregorian calendar, after 1600: whole years first, counted from March so that a leap day is a year's last day.
const fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days_before_month = (153 * month + 2) / 5;
    year * 365 + year / 4 - year / 100 + year / 400 + days_before_month + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;

    const NOV_1994: i64 = 784_111_777;

    #[test]
    fn one_moment_in_every_form_that_browsers_read() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Mon, 06-Nov-1994 08:49:37 GMT",
            "6 nov 94 8:49:37",
            "1994 November 6 08:49:37 +0200",
            "08:49:37, 6/NOV/1994",
            "06 Nov 1994 08:49:37GMT",
            "Sun,06 Nov 1994 08:49:37 UTC 1999",
            "\t;06th Nov 1994y 08:49:37.5",
        ] {
            assert_eq!(parse(text.as_bytes()), Some(NOV_1994), "{text}");
        }
    }

    #[test]
    fn years_of_two_digits_belong_to_the_hundred_years_around_2000() {
        let year = |text: &str| parse(format!("01 Jan {text} 00:00:00").as_bytes());
        assert_eq!(year("70"), Some(0));
        assert_eq!(year("99"), year("1999"));
        assert_eq!(year("00"), year("2000"));
        assert_eq!(year("69"), year("2069"));
        assert_eq!(year("1970"), Some(0));
        assert_eq!(year("1900"), Some(-2_208_988_800));
        assert_eq!(year("1601"), Some(-11_644_473_600));
        assert_eq!(year("9999"), Some(253_370_764_800));
        for none in ["1600", "100", "999", "7", "19700", ""] {
            assert_eq!(year(none), None, "{none}");
        }
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in [
            "",
            "0",
            "-1",
            "never",
            "Thu, 01 Jan 1970",
            "01 Jan 1970 24:00:00",
            "01 Jan 1970 00:60:00",
            "01 Jan 1970 00:00:60",
            "01 Jan 1970 00:00",
            "01 Jan 1970 000:00:00",
            "00 Jan 1970 00:00:00",
            "32 Jan 1970 00:00:00",
            "30 Feb 2000 00:00:00",
            "29 Feb 1900 00:00:00",
            "31 Apr 2000 00:00:00",
            "01 Foo 1970 00:00:00",
            "01 01 1970 00:00:00",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
        assert!(parse(b"29 Feb 2000 00:00:00").is_some());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(text in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = parse(&text);
        }

        #[test]
        fn pieces_of_dates_are_read_without_a_panic(
            pieces in prop::collection::vec("[0-9]{0,6}|[0-9]{1,3}:[0-9]{1,3}:[0-9]{1,3}|[A-Za-z]{2,4}|[-,;/ ]", 0..12),
        ) {
            let _ = parse(pieces.join(" ").as_bytes());
        }

        #[test]
        fn a_date_of_http_is_read_as_it_was_written(seconds in 0_i64..253_402_300_799) {
            let time = UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap());
            let text = httpdate::fmt_http_date(time);
            prop_assert_eq!(parse(text.as_bytes()), Some(seconds));
            prop_assert_eq!(parse(text.replace(' ', "-").as_bytes()), Some(seconds));
        }
    }
}
