//! Dates as HTTP writes them.

use crate::session::token::UnixMillis;

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/// 31 December 9999, 23:59:59: the last moment that four digits of a year can name.
const LAST: u64 = 253_402_300_799;

/// Bytes of a date.
pub(super) const LEN: usize = 29;

/// Appends the moment as an IMF-fixdate of RFC 9110: `Sun, 06 Nov 1994 08:49:37 GMT`.
pub(super) fn push(out: &mut Vec<u8>, time: UnixMillis) {
    let seconds = time.as_secs().min(LAST);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    out.extend_from_slice(name(&DAYS, days % 7).as_bytes());
    out.extend_from_slice(b", ");
    two_digits(out, day);
    out.push(b' ');
    out.extend_from_slice(name(&MONTHS, month - 1).as_bytes());
    out.push(b' ');
    two_digits(out, year / 100);
    two_digits(out, year % 100);
    out.push(b' ');
    two_digits(out, second / 3600);
    out.push(b':');
    two_digits(out, second / 60 % 60);
    out.push(b':');
    two_digits(out, second % 60);
    out.extend_from_slice(b" GMT");
}

/// Year, month (from 1) and day (from 1) of a day counted from 1 January 1970, after Howard Hinnant's
/// `civil_from_days`. Years begin in March there, so that the leap day is the last of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // from 1 March of the year 0
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

fn name<'a>(names: &[&'a str], place: u64) -> &'a str {
    usize::try_from(place).ok().and_then(|place| names.get(place)).copied().unwrap_or_default()
}

fn two_digits(out: &mut Vec<u8>, number: u64) {
    for digit in [number / 10 % 10, number % 10] {
        out.push(u8::try_from(digit).unwrap_or_default() + b'0');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(seconds: u64) -> String {
        let mut out = Vec::new();
        push(&mut out, UnixMillis::from_secs(seconds));
        assert_eq!(out.len(), LEN);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn dates_are_written_as_rfc_9110_shows_them() {
        assert_eq!(written(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(written(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(written(951_782_400), "Tue, 29 Feb 2000 00:00:00 GMT");
        assert_eq!(written(4_107_542_400), "Mon, 01 Mar 2100 00:00:00 GMT");
    }

    #[test]
    fn the_end_of_time_is_the_year_9999() {
        assert_eq!(written(u64::MAX / 1000), "Fri, 31 Dec 9999 23:59:59 GMT");
    }

    #[test]
    fn every_day_of_four_centuries_agrees_with_the_time_crate() {
        for day in 0..146_098 {
            let expected = cookie::time::OffsetDateTime::from_unix_timestamp(day * 86_400 + 3661).unwrap().date();
            let (year, month, day) = civil(day.unsigned_abs());
            let (y, m, d) = expected.to_calendar_date();
            assert_eq!((year, month, day), (y.unsigned_abs().into(), u8::from(m).into(), d.into()));
        }
    }
}
