//! Text and pictures as HTML.

/// `text` as HTML text or attribute value.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            other => out.push(other),
        }
    }
    out
}

/// A JPEG as a `data:` address; an empty text for an empty picture.
pub(crate) fn data_uri(jpeg: &[u8]) -> String {
    if jpeg.is_empty() {
        return String::new();
    }
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(jpeg.len() * 4 / 3 + 32);
    out += "data:image/jpeg;base64,";
    for chunk in jpeg.chunks(3) {
        let byte = |i: usize| chunk.get(i).copied().unwrap_or(0) as u32;
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            let sextet = (bits >> (18 - 6 * i)) & 63;
            out.push(if i > chunk.len() {
                '='
            } else {
                ALPHABET[sextet as usize] as char
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_has_its_published_values() {
        let encode = |text: &str| data_uri(text.as_bytes()).split_off(23);
        // RFC 4648, 10.
        assert_eq!(encode("f"), "Zg==");
        assert_eq!(encode("fo"), "Zm8=");
        assert_eq!(encode("foobar"), "Zm9vYmFy");
    }

    #[test]
    fn escaped_text_cannot_end_an_attribute_or_open_a_tag() {
        assert_eq!(
            escape(r#"<a b="c">'&"#),
            "&lt;a b=&quot;c&quot;&gt;&#39;&amp;"
        );
    }
}
