//! stub
#[derive(Clone, Debug)] pub struct Beat;
impl Beat { pub fn beat(&self) {} pub fn busy(&self) {} }
#[derive(Debug)] pub struct Health;
impl Health { pub fn polling(&self, _ok: bool) {} pub fn stopping(&self) {} }
