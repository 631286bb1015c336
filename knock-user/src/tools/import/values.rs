//! Parses values of knockd's keys.

use knock_common::{layout::FlagClass, packet::Protocol, secret::SECRET_MOST};
use knock_sequence::Knock;

use crate::model::value;

/// `otp = SEED, period, base, on|off, protocol...`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct KnockdOtp {
    pub(super) secret: String,
    /// Seconds.
    pub(super) period: u64,
    pub(super) base: u16,
    pub(super) bind_source: bool,
    pub(super) protocols: Vec<Protocol>,
}

/// Returns a number without a sign.
pub(super) fn whole(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

pub(super) fn sequence(value: &str) -> Result<Vec<Knock>, String> {
    if value.is_empty() {
        return Err("empty: write knocks, as in 7000,8000:udp,9000".to_owned());
    }
    value.split(',').map(str::trim).map(knock).collect()
}

fn knock(item: &str) -> Result<Knock, String> {
    let (port, protocol) = item.split_once(':').unwrap_or((item, "tcp"));
    let wrong = |what: &str| {
        Err(format!(
            "{item:?} {what}: write a port from 1 to 65535, and :udp or :tcp behind it"
        ))
    };
    let Some(protocol) = protocol_named(protocol.trim()) else {
        return wrong("has an unknown protocol");
    };
    match whole(port.trim()).and_then(|port| u16::try_from(port).ok()) {
        Some(port) if port > 0 => Ok(Knock { protocol, port }),
        _ => wrong("is not a knock"),
    }
}

fn protocol_named(word: &str) -> Option<Protocol> {
    [Protocol::Tcp, Protocol::Udp]
        .into_iter()
        .find(|protocol| protocol.name().eq_ignore_ascii_case(word))
}

pub(super) fn flags(value: &str) -> Result<FlagClass, String> {
    if value.contains(char::is_whitespace) {
        return Err(format!(
            "{value:?} contains a blank, which knockd does not accept: remove it"
        ));
    }
    value::tcp_flags(value).map_err(|error| error.to_string())
}

/// The least number of fields of an `otp` line: secret, period, base, on or off, one protocol.
const OTP_ITEMS_LEAST: usize = 5;
pub(super) fn otp(value: &str) -> Result<KnockdOtp, String> {
    const FORM: &str = "write SEED, seconds, base port, on or off, and a protocol for each knock, \
                        as in otp = secret, 45, 20000, on, tcp, udp, tcp";
    let items: Vec<&str> = value.split(',').map(str::trim).collect();
    let [secret, period, base, bind_source, protocols @ ..] = items.as_slice() else {
        return Err(format!("too short: {FORM}"));
    };
    if items.len() < OTP_ITEMS_LEAST {
        return Err(format!("no protocol: {FORM}"));
    }
    if secret.is_empty() || secret.len() > SECRET_MOST {
        return Err(format!(
            "the seed has {} bytes, and the fork takes 1 to {SECRET_MOST}",
            secret.len()
        ));
    }
    let Some(period) = whole(period).filter(|&period| period > 0) else {
        return Err(format!("{period:?} is not a number of seconds: {FORM}"));
    };
    let Some(base) = whole(base).and_then(|base| u16::try_from(base).ok()) else {
        return Err(format!("{base:?} is not a port: {FORM}"));
    };
    let bind_source = match bind_source.to_ascii_lowercase().as_str() {
        "on" => true,
        "off" => false,
        _ => return Err(format!("{bind_source:?} is neither on nor off: {FORM}")),
    };
    let protocols = protocols
        .iter()
        .map(|word| {
            protocol_named(word).ok_or_else(|| {
                format!(
                    "{word:?} is not a protocol: \
                     {FORM}"
                )
            })
        })
        .collect::<Result<_, _>>()?;
    Ok(KnockdOtp {
        secret: (*secret).to_owned(),
        period,
        base,
        bind_source,
        protocols,
    })
}
