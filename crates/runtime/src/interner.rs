//! Keeps one copy of each text that thousands of objects share.

use std::collections::HashSet;
use std::sync::Arc;

/// No cleanup below this number of texts.
const MIN_CLEANUP: usize = 256;

/// Returns the same copy of a text to every caller.
///
/// Only for texts that many objects share, because each text also costs an entry here. Texts that are no longer used are
/// dropped whenever their number has doubled since the last cleanup.
#[derive(Debug, Default)]
pub struct SharedTexts {
    known: HashSet<Arc<str>>,
    next_cleanup: usize,
}

impl SharedTexts {
    /// The shared copy of the text.
    pub fn share(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.known.get(text) {
            return known.clone();
        }
        if self.known.len() >= self.next_cleanup {
            self.known.retain(|text| Arc::strong_count(text) > 1);
            self.next_cleanup = MIN_CLEANUP.max(2 * self.known.len());
        }
        let text: Arc<str> = text.into();
        self.known.insert(text.clone());
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_share_one_copy() {
        let mut texts = SharedTexts::default();
        let (one, again, other) = (texts.share("tenant"), texts.share("tenant"), texts.share("other"));
        assert!(Arc::ptr_eq(&one, &again) && !Arc::ptr_eq(&one, &other));
        assert_eq!(&*one, "tenant");
    }

    #[test]
    fn unused_texts_are_dropped() {
        let mut texts = SharedTexts::default();
        let used: Vec<_> = (0..MIN_CLEANUP).map(|number| texts.share(&format!("used {number}"))).collect();
        for number in 0..10 * MIN_CLEANUP {
            texts.share(&format!("unused {number}"));
        }
        assert!(texts.known.len() <= 2 * MIN_CLEANUP, "{}", texts.known.len());
        assert!(used.iter().all(|text| Arc::ptr_eq(text, &texts.share(text))), "used texts stay");
    }
}
