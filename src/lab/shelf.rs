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

    /// Whether the caller may keep runs from now on: one does at a time, in whatever tab of the browser, so that none writes
    /// over another's. Where somebody else does, `granted` is called when it is the caller's turn.
    pub async fn claim(&self, granted: impl Fn() + 'static) -> bool {
        match self {
            #[cfg(target_arch = "wasm32")]
            Self::Browser => browser::claim(granted).await,
            _ => {
                drop(granted);
                true
            }
        }
    }

    /// Lets others keep their runs again.
    pub fn give_back(&self) {
        #[cfg(target_arch = "wasm32")]
        if let Self::Browser = self {
            browser::give_back();
        }
    }

    /// Hands bytes over as a file, without keeping them: where they are had from now on.
    ///
    /// # Errors
    /// Why not, in the browser's words.
    pub fn offer(&self, bytes: Vec<u8>) -> Result<String, String> {
        match self {
            Self::Nowhere => Ok(String::new()),
            Self::Memory(kept) => {
                kept.borrow_mut().insert("file".into(), bytes);
                Ok("file".into())
            }
            #[cfg(target_arch = "wasm32")]
            Self::Browser => browser::offer(&bytes),
        }
    }

    /// The bytes of a file that is handed in.
    ///
    /// # Errors
    /// Why they cannot be read.
    pub async fn take(&self, from: &str) -> Result<Vec<u8>, String> {
        match self {
            #[cfg(target_arch = "wasm32")]
            Self::Browser => browser::take(from).await,
            _ => Ok(self.get(from).await?.unwrap_or_default()),
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
        #[wasm_bindgen(js_namespace = attentionLabShelf, js_name = claim)]
        async fn claim_it(granted: &JsValue) -> JsValue;
        #[wasm_bindgen(js_namespace = attentionLabShelf, js_name = giveBack)]
        pub fn give_back();
        #[wasm_bindgen(js_namespace = attentionLabShelf, js_name = offer, catch)]
        fn offer_one(bytes: &Uint8Array) -> Result<String, JsValue>;
        #[wasm_bindgen(js_namespace = attentionLabShelf, js_name = take, catch)]
        async fn take_one(from: &str) -> Result<JsValue, JsValue>;
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

    pub async fn claim(granted: impl Fn() + 'static) -> bool {
        let granted = Closure::<dyn Fn()>::new(granted).into_js_value();
        claim_it(&granted).await.is_truthy()
    }

    pub fn offer(bytes: &[u8]) -> Result<String, String> {
        offer_one(&Uint8Array::from(bytes)).map_err(reason)
    }

    pub async fn take(from: &str) -> Result<Vec<u8>, String> {
        take_one(from).await.map(|bytes| Uint8Array::new(&bytes).to_vec()).map_err(reason)
    }

    /// An error in its own words: `QuotaExceededError: …`.
    fn reason(error: JsValue) -> String {
        js_sys::Object::from(error).to_string().into()
    }
}
