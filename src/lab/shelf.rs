//! Where an engine keeps bytes by name from one visit to the next.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// A place for bytes. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub enum Shelf {
    /// Nothing is kept.
    #[default]
    Nowhere,
    /// For tests.
    Memory(Rc<RefCell<BTreeMap<String, Vec<u8>>>>),
    /// The browser's, of this page's origin.
    #[cfg(target_arch = "wasm32")]
    Browser,
}

impl Shelf {
    /// Keeps all of these, or none.
    ///
    /// # Errors
    /// Why not, in the browser's words.
    pub async fn put(&self, entries: &[(String, Vec<u8>)]) -> Result<(), String> {
        match self {
            Self::Nowhere => Ok(()),
            Self::Memory(kept) => {
                kept.borrow_mut().extend(entries.iter().cloned());
                Ok(())
            }
            #[cfg(target_arch = "wasm32")]
            Self::Browser => browser::put(entries).await,
        }
    }

    /// What is kept under a name.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub async fn get(&self, name: &str) -> Result<Option<Vec<u8>>, String> {
        match self {
            Self::Nowhere => Ok(None),
            Self::Memory(kept) => Ok(kept.borrow().get(name).cloned()),
            #[cfg(target_arch = "wasm32")]
            Self::Browser => browser::get(name).await,
        }
    }
}

#[cfg(target_arch = "wasm32")]
mod browser {
    use js_sys::{Array, Uint8Array};
    use wasm_bindgen::prelude::*;

    #[wasm_bindgen]
    extern "C" {
        /// `web/shelf.js`.
        #[wasm_bindgen(js_namespace = attentionLabShelf, js_name = put, catch)]
        async fn put_all(entries: &Array) -> Result<JsValue, JsValue>;
        #[wasm_bindgen(js_namespace = attentionLabShelf, js_name = get, catch)]
        async fn get_one(name: &str) -> Result<JsValue, JsValue>;
    }

    pub async fn put(entries: &[(String, Vec<u8>)]) -> Result<(), String> {
        let all = Array::new();
        for (name, bytes) in entries {
            all.push(&Array::of2(&JsValue::from_str(name), &Uint8Array::from(bytes.as_slice())));
        }
        put_all(&all).await.map(|_| ()).map_err(reason)
    }

    pub async fn get(name: &str) -> Result<Option<Vec<u8>>, String> {
        let value = get_one(name).await.map_err(reason)?;
        Ok(value.dyn_ref::<Uint8Array>().map(Uint8Array::to_vec))
    }

    /// An error in its own words: `QuotaExceededError: …`.
    fn reason(error: JsValue) -> String {
        js_sys::Object::from(error).to_string().into()
    }
}
