//! The names of certificates as text (RFC 4514).
//!
//! What a certificate's holder has put into one attribute must not read as another one, and the text goes into a header: so
//! every special character is escaped, and what is not printable ASCII is written as hexadecimal pairs.

use std::fmt::Write;

use x509_parser::der_parser::asn1_rs::ToDer;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// The types that have names: those of RFC 4514, and what OpenSSL writes for others that are common.
const KEYWORDS: [(&str, &str); 13] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.6", "C"),
    ("2.5.4.9", "STREET"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.42", "GN"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

/// The name as text, its last part first. Empty for a name without parts.
pub(super) fn rfc4514(name: &X509Name<'_>) -> String {
    let parts: Vec<_> = name.iter_rdn().collect();
    let mut text = String::new();
    for part in parts.into_iter().rev() {
        let mut separator = if text.is_empty() { "" } else { "," };
        for attribute in part.iter() {
            text.push_str(separator);
            write_attribute(attribute, &mut text);
            separator = "+";
        }
    }
    text
}

fn write_attribute(attribute: &AttributeTypeAndValue<'_>, text: &mut String) {
    let oid = attribute.attr_type().to_id_string();
    let keyword = KEYWORDS.into_iter().find(|(known, _)| *known == oid).map(|(_, keyword)| keyword);
    text.push_str(keyword.unwrap_or(&oid));
    text.push('=');
    if let (Some(_), Ok(value)) = (keyword, attribute.as_str()) {
        write_value(value, text);
        return;
    }
    // Without a keyword nothing says how the value is to be read (RFC 4514, section 2.4).
    text.push('#');
    for byte in attribute.attr_value().to_der_vec().unwrap_or_default() {
        let _ = write!(text, "{byte:02x}");
    }
}

fn write_value(value: &str, text: &mut String) {
    let last = value.len().saturating_sub(1);
    for (index, byte) in value.bytes().enumerate() {
        match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' => text.extend(['\\', char::from(byte)]),
            b' ' if index == 0 || index == last => text.push_str("\\ "),
            b'#' if index == 0 => text.push_str("\\#"),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => {
                let _ = write!(text, "\\{byte:02X}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
    use x509_parser::certificate::X509Certificate;
    use x509_parser::prelude::FromDer;

    use super::*;

    fn subject(attributes: &[(DnType, &str)]) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in attributes {
            params.distinguished_name.push(kind.clone(), *value);
        }
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let (_, parsed) = X509Certificate::from_der(certificate.der()).unwrap();
        rfc4514(parsed.subject())
    }

    #[test]
    fn the_last_part_of_a_name_comes_first() {
        let name =
            [(DnType::CountryName, "DE"), (DnType::OrganizationName, "Bank & Co"), (DnType::CommonName, "alice")];
        assert_eq!(subject(&name), "CN=alice,O=Bank & Co,C=DE");
        assert_eq!(subject(&[]), "");
    }

    #[test]
    fn no_value_reads_as_another_attribute_and_none_ends_the_header() {
        for (value, written) in [
            ("mallory,CN=admin", "CN=mallory\\,CN=admin"),
            ("a+b\"c\\d;<e>", "CN=a\\+b\\\"c\\\\d\\;\\<e\\>"),
            (" # ", "CN=\\ #\\ "),
            ("#5", "CN=\\#5"),
            (" ", "CN=\\ "),
            ("a\r\nX-Admin: 1", "CN=a\\0D\\0AX-Admin: 1"),
            ("Jürgen", "CN=J\\C3\\BCrgen"),
        ] {
            assert_eq!(subject(&[(DnType::CommonName, value)]), written);
        }
    }

    #[test]
    fn a_type_without_a_keyword_is_written_by_number() {
        let title = DnType::CustomDnType(vec![2, 5, 4, 12]);
        assert_eq!(subject(&[(title, "Dr")]), "2.5.4.12=#0c024472");
    }

    proptest! {
        #[test]
        fn every_subject_is_a_header_value_and_can_be_read_back(value in "[ -~\u{0}-\u{1f}ä€]{0,24}") {
            let mut text = String::new();
            write_value(&value, &mut text);
            prop_assert!(HeaderValue::from_str(&text).is_ok());
            let (mut read, mut bytes) = (Vec::new(), text.bytes());
            while let Some(byte) = bytes.next() {
                prop_assert!(!b",+;<>\"".contains(&byte), "a special character stands alone: {}", text);
                if byte != b'\\' {
                    read.push(byte);
                    continue;
                }
                let first = bytes.next().unwrap();
                if first.is_ascii_hexdigit() {
                    let pair = [first, bytes.next().unwrap()];
                    read.push(u8::from_str_radix(std::str::from_utf8(&pair).unwrap(), 16).unwrap());
                } else {
                    read.push(first);
                }
            }
            prop_assert_eq!(String::from_utf8(read).unwrap(), value);
        }
    }
}
