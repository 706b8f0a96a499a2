//! Texts that thousands of objects have in common, kept once.

use std::collections::HashSet;
use std::sync::Arc;

/// So few texts are never looked through.
const FEW: usize = 256;

/// Hands out the same copy of a text to everybody who asks for it.
///
/// For texts of which many objects have the same one: whatever is kept here costs an entry of its own. What nobody has any
/// more goes once there are twice as many texts as there were in use.
#[derive(Debug, Default)]
pub struct SharedTexts {
    known: HashSet<Arc<str>>,
    look_through_at: usize,
}

impl SharedTexts {
    /// The text, shared with whoever asked for it before.
    pub fn share(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.known.get(text) {
            return known.clone();
        }
        if self.known.len() >= self.look_through_at {
            self.known.retain(|text| Arc::strong_count(text) > 1);
            self.look_through_at = FEW.max(2 * self.known.len());
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
    fn equal_texts_are_one() {
        let mut texts = SharedTexts::default();
        let (one, again, other) = (texts.share("tenant"), texts.share("tenant"), texts.share("other"));
        assert!(Arc::ptr_eq(&one, &again) && !Arc::ptr_eq(&one, &other));
        assert_eq!(&*one, "tenant");
    }

    #[test]
    fn what_nobody_has_any_more_goes() {
        let mut texts = SharedTexts::default();
        let kept: Vec<_> = (0..FEW).map(|number| texts.share(&format!("kept {number}"))).collect();
        for number in 0..10 * FEW {
            texts.share(&format!("passing {number}"));
        }
        assert!(texts.known.len() <= 2 * FEW, "{}", texts.known.len());
        assert!(kept.iter().all(|text| Arc::ptr_eq(text, &texts.share(text))), "what somebody has stays");
    }
}
