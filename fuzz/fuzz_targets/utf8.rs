//! Text in pieces, judged as the standard library judges the whole of it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stentor::protocol::utf8::Utf8Validator;

fuzz_target!(|pieces: Vec<&[u8]>| {
    let mut validator = Utf8Validator::default();
    let mut so_far = Vec::new();
    for piece in pieces {
        so_far.extend_from_slice(piece);
        // What may still become text is not an error; what cannot is one at once.
        let may_be_text = std::str::from_utf8(&so_far)
            .err()
            .is_none_or(|e| e.error_len().is_none());
        assert_eq!(validator.push(piece).is_ok(), may_be_text);
        if !may_be_text {
            return;
        }
    }
    assert_eq!(
        validator.finish().is_ok(),
        std::str::from_utf8(&so_far).is_ok()
    );
});
