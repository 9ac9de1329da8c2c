//! What a stream around another one passes on: what Pingora asks of a connection besides bytes.

/// Implements the traits for a type with a field of the inner stream.
macro_rules! delegate {
    ($type:ty, $inner:ident) => {
        impl ::pingora::protocols::UniqueID for $type {
            fn id(&self) -> ::pingora::protocols::UniqueIDType {
                self.$inner.id()
            }
        }

        impl ::pingora::protocols::Ssl for $type {
            fn get_ssl_digest(&self) -> Option<::std::sync::Arc<::pingora::protocols::tls::SslDigest>> {
                self.$inner.get_ssl_digest()
            }

            fn selected_alpn_proto(&self) -> Option<::pingora::protocols::ALPN> {
                self.$inner.selected_alpn_proto()
            }
        }

        impl ::pingora::protocols::GetTimingDigest for $type {
            fn get_timing_digest(&self) -> Vec<Option<::pingora::protocols::TimingDigest>> {
                self.$inner.get_timing_digest()
            }
        }

        impl ::pingora::protocols::GetSocketDigest for $type {
            fn get_socket_digest(&self) -> Option<::std::sync::Arc<::pingora::protocols::SocketDigest>> {
                self.$inner.get_socket_digest()
            }
        }

        impl ::std::fmt::Debug for $type {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.debug_struct(stringify!($type)).field(stringify!($inner), &self.$inner).finish_non_exhaustive()
            }
        }
    };
}

pub(super) use delegate;
