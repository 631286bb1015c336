//! The subprograms that read the packet, once for each kind of packet: the kernel passes each kind of program a context
//! of its own type, and a subprogram takes one type.

use knock_common::{
    FrameSubprograms, Subprograms, block,
    connection::HandshakeStep,
    fwknop::{self, FwknopScratch},
    handshake,
    packet::Segment,
    seen,
    spa::{self, layout::SpaScratch, port::SpaPort, step::SpaStep},
};

use crate::{
    current::Current as _,
    frame::Frame,
    maps::{self, Maps},
    skb::Packet,
};

/// Defines the subprograms of a kind of packet. Their names in the object end in `$suffix`.
macro_rules! packet_subprograms {
    ($module:ident, $packet:ty, $context:ident, $suffix:literal) => {
        mod $module {
            use aya_ebpf::bindings::$context;

            use super::*;

            /// Records a packet that is neither IPv4 nor IPv6.
            #[unsafe(export_name = concat!("note_other", $suffix))]
            #[inline(never)]
            extern "C" fn note_other(context: *mut $context) -> u64 {
                let packet = <$packet>::of(context);
                if let Some(ethertype) = seen::foreign_type(&packet) {
                    maps::note_foreign(knock_common::Bytes::interface(&packet), ethertype);
                }
                0
            }

            #[unsafe(export_name = concat!("is_blocked", $suffix))]
            #[inline(never)]
            extern "C" fn is_blocked(context: *mut $context) -> u64 {
                block::is_blocked(&<$packet>::of(context), &Maps::new()).into()
            }

            #[unsafe(export_name = concat!("report_blocked", $suffix))]
            #[inline(never)]
            extern "C" fn report_blocked(context: *mut $context) -> u64 {
                block::report(&<$packet>::of(context), &Maps::new());
                0
            }

            #[unsafe(export_name = concat!("classify", $suffix))]
            #[inline(never)]
            extern "C" fn classify(context: *mut $context) -> u64 {
                handshake::classify(&<$packet>::of(context), &Maps::new()) as u64
            }

            /// Judges the gate; `segment` and `port_number` are a `Segment` as words, `port` is a `SpaPort` as bits.
            #[unsafe(export_name = concat!("pass_gate", $suffix))]
            #[inline(never)]
            extern "C" fn pass_gate(
                context: *mut $context,
                scratch: *mut SpaScratch,
                segment: u64,
                port_number: u32,
                port: u32,
            ) -> u64 {
                // SAFETY: the caller's `SpaScratch`, which only this function uses during the call, or null.
                let Some(scratch) = (unsafe { scratch.as_mut() }) else {
                    return SpaStep::NotSpa.to_word();
                };
                let packet = <$packet>::of(context);
                let port = SpaPort::from_bits(port as u8, 0);
                let segment = Segment::from_words(segment, port_number as u16);
                spa::judge::pass_gate(&packet, &segment, &Maps::new(), port, scratch).to_word()
            }

            /// Copies a packet of fwknop; arguments as in `pass_gate`.
            #[unsafe(export_name = concat!("copy_fwknop", $suffix))]
            #[inline(never)]
            extern "C" fn copy_fwknop(
                context: *mut $context,
                scratch: *mut FwknopScratch,
                segment: u64,
                port_number: u32,
                port: u32,
            ) -> u64 {
                // SAFETY: the caller's `FwknopScratch`, which only this function uses during the call, or null.
                let Some(scratch) = (unsafe { scratch.as_mut() }) else {
                    return SpaStep::NotSpa.to_word();
                };
                let packet = <$packet>::of(context);
                let port = SpaPort::from_bits(port as u8, 0);
                let segment = Segment::from_words(segment, port_number as u16);
                fwknop::judge::copy(&packet, &segment, &Maps::new(), port, scratch).to_word()
            }

            /// Copies as many bytes as are expected, from `offset` on, to the scratch.
            #[unsafe(export_name = concat!("load_fwknop", $suffix))]
            #[inline(never)]
            extern "C" fn load_fwknop(
                context: *mut $context,
                scratch: *mut FwknopScratch,
                offset: u32,
            ) -> u64 {
                // SAFETY: as in `copy_fwknop`.
                let Some(scratch) = (unsafe { scratch.as_mut() }) else {
                    return 0;
                };
                let room = scratch.room();
                if room.is_empty() {
                    return 0;
                }
                <$packet>::copy(context, offset, room).into()
            }

            impl FrameSubprograms for $packet {
                #[inline(always)]
                fn note_other(&self) {
                    note_other(self.context());
                }

                #[inline(always)]
                fn is_blocked<E: Subprograms>(&self, _env: &E) -> bool {
                    is_blocked(self.context()) != 0
                }

                #[inline(always)]
                fn report_blocked<E: Subprograms>(&self, _env: &E) {
                    report_blocked(self.context());
                }

                #[inline(always)]
                fn classify<E: Subprograms>(&self, _env: &E) -> HandshakeStep {
                    HandshakeStep::from_number(classify(self.context()))
                }

                #[inline(always)]
                fn pass_gate<E: Subprograms>(
                    &self,
                    segment: &Segment,
                    _env: &E,
                    port: SpaPort,
                    scratch: &mut SpaScratch,
                ) -> SpaStep {
                    let (word, port_number) = segment.to_words();
                    let port = port.to_bits().into();
                    SpaStep::from_word(pass_gate(
                        self.context(),
                        scratch,
                        word,
                        port_number.into(),
                        port,
                    ))
                }

                #[inline(always)]
                fn copy_fwknop<E: Subprograms>(
                    &self,
                    segment: &Segment,
                    _env: &E,
                    port: SpaPort,
                    scratch: &mut FwknopScratch,
                ) -> SpaStep {
                    let (word, port_number) = segment.to_words();
                    let port = port.to_bits().into();
                    SpaStep::from_word(copy_fwknop(
                        self.context(),
                        scratch,
                        word,
                        port_number.into(),
                        port,
                    ))
                }

                #[inline(always)]
                fn load(&self, offset: usize, scratch: &mut FwknopScratch) -> bool {
                    load_fwknop(self.context(), scratch, offset as u32) != 0
                }
            }
        }
    };
}

packet_subprograms!(frame, Frame<false>, xdp_md, "");
packet_subprograms!(bare_frame, Frame<true>, xdp_md, "_bare");
packet_subprograms!(packet, Packet<false>, __sk_buff, "_tc");
packet_subprograms!(bare_packet, Packet<true>, __sk_buff, "_ip");
