package stub

import "encoding/binary"

// A reg is a register of the machine: a0 to a4 are a system call's arguments
// and do not survive it, s0 to s5 do.
type reg int

const (
	a0 reg = iota
	a1
	a2
	a3
	a4
	s0
	s1
	s2
	s3
	s4
	s5
)

// A cond compares a register with a number, signed.
type cond int

const (
	eq cond = iota
	ne
	lt
)

// A machine is a processor: its encodings of our instructions, each as in the
// methods of assembler.
type machine struct {
	name  string
	elf   uint16 // e_machine
	regs  [11]uint32
	calls func(name string) int32

	imm, addi, low, shl, shr func(r uint32, n int32) []byte
	mov, add, sub            func(to, from uint32) []byte
	neg, stack               func(r uint32) []byte
	load, load32, load8      func(to, from uint32, off int32) []byte
	store                    func(from, to uint32, off int32) []byte
	store8                   func(from, to uint32) []byte
	compare                  func(r uint32, n int32) []byte
	alloc                    func() []byte // 4 KiB of stack
	sys                      func(nr int32) []byte
	result                   func(r uint32) []byte

	// With the distance to the label, from the instruction's begin.
	branch  func(c cond, distance int32) []byte
	jump    func(distance int32) []byte
	address func(r uint32, distance int32) []byte
}

// An assembler collects instructions. Those that name a label are encoded
// twice: first with a distance of zero, for their length.
type assembler struct {
	m      machine
	code   []byte
	labels map[string]int
	fixes  []fix
}

type fix struct {
	at     int
	label  string
	encode func(distance int32) []byte
}

func (a *assembler) emit(b []byte)  { a.code = append(a.code, b...) }
func (a *assembler) r(r reg) uint32 { return a.m.regs[r] }

func (a *assembler) imm(r reg, n int32)           { a.emit(a.m.imm(a.r(r), n)) }
func (a *assembler) addi(r reg, n int32)          { a.emit(a.m.addi(a.r(r), n)) }
func (a *assembler) low(r reg, bits int32)        { a.emit(a.m.low(a.r(r), bits)) }
func (a *assembler) shl(r reg, bits int32)        { a.emit(a.m.shl(a.r(r), bits)) }
func (a *assembler) shr(r reg, bits int32)        { a.emit(a.m.shr(a.r(r), bits)) }
func (a *assembler) mov(to, from reg)             { a.emit(a.m.mov(a.r(to), a.r(from))) }
func (a *assembler) add(to, from reg)             { a.emit(a.m.add(a.r(to), a.r(from))) }
func (a *assembler) sub(to, from reg)             { a.emit(a.m.sub(a.r(to), a.r(from))) }
func (a *assembler) neg(r reg)                    { a.emit(a.m.neg(a.r(r))) }
func (a *assembler) stack(r reg)                  { a.emit(a.m.stack(a.r(r))) }
func (a *assembler) load(to, from reg, o int32)   { a.emit(a.m.load(a.r(to), a.r(from), o)) }
func (a *assembler) load32(to, from reg, o int32) { a.emit(a.m.load32(a.r(to), a.r(from), o)) }
func (a *assembler) load8(to, from reg, o int32)  { a.emit(a.m.load8(a.r(to), a.r(from), o)) }
func (a *assembler) store(from, to reg, o int32)  { a.emit(a.m.store(a.r(from), a.r(to), o)) }
func (a *assembler) store8(from, to reg)          { a.emit(a.m.store8(a.r(from), a.r(to))) }
func (a *assembler) alloc()                       { a.emit(a.m.alloc()) }
func (a *assembler) sys(name string)              { a.emit(a.m.sys(a.m.calls(name))) }

// result must follow sys at once: the register may be a0.
func (a *assembler) result(r reg) { a.emit(a.m.result(a.r(r))) }

func (a *assembler) label(name string) { a.labels[name] = len(a.code) }

// data may be followed by instructions, which on arm64 lie at multiples of four.
func (a *assembler) data(name, bytes string) {
	a.label(name)
	a.emit([]byte(bytes))
	a.emit(make([]byte, -len(a.code)&3))
}

func (a *assembler) branch(r reg, n int32, c cond, label string) {
	a.emit(a.m.compare(a.r(r), n))
	a.fix(label, func(d int32) []byte { return a.m.branch(c, d) })
}

func (a *assembler) jump(label string) { a.fix(label, a.m.jump) }

func (a *assembler) address(r reg, label string) {
	a.fix(label, func(d int32) []byte { return a.m.address(a.r(r), d) })
}

func (a *assembler) fix(label string, encode func(int32) []byte) {
	a.fixes = append(a.fixes, fix{len(a.code), label, encode})
	a.emit(encode(0))
}

func (a *assembler) link() []byte {
	for _, f := range a.fixes {
		copy(a.code[f.at:], f.encode(int32(a.labels[f.label]-f.at)))
	}
	return a.code
}

// machines are all of them, by name.
var machines = []struct {
	name string
	make func() machine
}{{"amd64", amd64}, {"arm64", arm64}}

// amd64 is the AMD64 Architecture Programmer's Manual, volume 3. Every
// instruction has a REX prefix, and every offset 32 bits: size is not the point.
func amd64() machine {
	rex := func(w, r, b uint32) byte { return byte(0x40 | w<<3 | r>>3<<2 | b>>3) }
	imm32 := func(b []byte, n int32) []byte { return binary.LittleEndian.AppendUint32(b, uint32(n)) }
	// OP r/m, r: both registers
	both := func(op byte) func(uint32, uint32) []byte {
		return func(to, from uint32) []byte {
			return []byte{rex(1, from, to), op, byte(0xc0 | from&7<<3 | to&7)}
		}
	}
	// OP /ext r/m, imm32
	ext := func(op byte, extension, r uint32, n int32) []byte {
		return imm32([]byte{rex(1, 0, r), op, byte(0xc0 | extension<<3 | r&7)}, n)
	}
	// OP r, [base+off]
	memory := func(w uint32, op []byte, r, base uint32, off int32) []byte {
		b := append([]byte{rex(w, r, base)}, op...)
		b = append(b, byte(0x80|r&7<<3|base&7))
		if base&7 == 4 { // rsp and r12 need a SIB byte
			b = append(b, 0x24)
		}
		return imm32(b, off)
	}
	shift := func(extension uint32) func(uint32, int32) []byte {
		return func(r uint32, n int32) []byte {
			return []byte{rex(1, 0, r), 0xc1, byte(0xc0 | extension<<3 | r&7), byte(n)}
		}
	}
	mov := both(0x89)
	return machine{
		name: "amd64", elf: 62,
		//       rdi rsi rdx r10 r8 rbx rbp r12 r13 r14 r15
		regs:    [11]uint32{7, 6, 2, 10, 8, 3, 5, 12, 13, 14, 15},
		calls:   amd64Calls,
		imm:     func(r uint32, n int32) []byte { return ext(0xc7, 0, r, n) },
		addi:    func(r uint32, n int32) []byte { return ext(0x81, 0, r, n) },
		low:     func(r uint32, bits int32) []byte { return ext(0x81, 4, r, 1<<bits-1) },
		compare: func(r uint32, n int32) []byte { return ext(0x81, 7, r, n) },
		shl:     shift(4),
		shr:     shift(5),
		mov:     mov,
		add:     both(0x01),
		sub:     both(0x29),
		neg:     func(r uint32) []byte { return []byte{rex(1, 0, r), 0xf7, byte(0xc0 | 3<<3 | r&7)} },
		stack:   func(r uint32) []byte { return mov(r, 4) },
		load:    func(to, from uint32, o int32) []byte { return memory(1, []byte{0x8b}, to, from, o) },
		load32:  func(to, from uint32, o int32) []byte { return memory(0, []byte{0x8b}, to, from, o) },
		load8:   func(to, from uint32, o int32) []byte { return memory(1, []byte{0x0f, 0xb6}, to, from, o) },
		store:   func(from, to uint32, o int32) []byte { return memory(1, []byte{0x89}, from, to, o) },
		store8:  func(from, to uint32) []byte { return memory(0, []byte{0x88}, from, to, 0) },
		alloc:   func() []byte { return ext(0x81, 5, 4, 4096) },
		sys:     func(nr int32) []byte { return append(ext(0xc7, 0, 0, nr), 0x0f, 0x05) },
		result:  func(r uint32) []byte { return mov(r, 0) },
		branch: func(c cond, d int32) []byte {
			return imm32([]byte{0x0f, [...]byte{eq: 0x84, ne: 0x85, lt: 0x8c}[c]}, d-6)
		},
		jump:    func(d int32) []byte { return imm32([]byte{0xe9}, d-5) },
		address: func(r uint32, d int32) []byte { return imm32([]byte{rex(1, r, 0), 0x8d, byte(r&7<<3 | 5)}, d-7) },
	}
}

// arm64 is the Arm Architecture Reference Manual, chapter C6. Offsets are
// multiples of the size, numbers below 4096 (those of imm: 65536).
func arm64() machine {
	word := func(w uint32) []byte { return binary.LittleEndian.AppendUint32(nil, w) }
	signed := func(plus, minus uint32, r, to uint32, n int32) []byte {
		if n < 0 {
			plus, n = minus, -n
		}
		return word(plus | uint32(n)<<10 | r<<5 | to)
	}
	move := func(r uint32, n int32) []byte {
		if n < 0 {
			return word(0x92800000 | uint32(^n)<<5 | r) // MOVN
		}
		return word(0xd2800000 | uint32(n)<<5 | r) // MOVZ
	}
	mov := func(to, from uint32) []byte { return word(0xaa0003e0 | from<<16 | to) }
	return machine{
		name: "arm64", elf: 183,
		regs:    [11]uint32{0, 1, 2, 3, 4, 19, 20, 21, 22, 23, 24},
		calls:   arm64Calls,
		imm:     move,
		addi:    func(r uint32, n int32) []byte { return signed(0x91000000, 0xd1000000, r, r, n) },
		compare: func(r uint32, n int32) []byte { return signed(0xf1000000, 0xb1000000, r, 31, n) },
		low:     func(r uint32, bits int32) []byte { return word(0x92400000 | uint32(bits-1)<<10 | r<<5 | r) },
		shl: func(r uint32, n int32) []byte {
			return word(0xd3400000 | uint32(64-n)<<16 | uint32(63-n)<<10 | r<<5 | r)
		},
		shr:    func(r uint32, n int32) []byte { return word(0xd340fc00 | uint32(n)<<16 | r<<5 | r) },
		mov:    mov,
		add:    func(to, from uint32) []byte { return word(0x8b000000 | from<<16 | to<<5 | to) },
		sub:    func(to, from uint32) []byte { return word(0xcb000000 | from<<16 | to<<5 | to) },
		neg:    func(r uint32) []byte { return word(0xcb0003e0 | r<<16 | r) },
		stack:  func(r uint32) []byte { return word(0x910003e0 | r) },
		load:   func(to, from uint32, o int32) []byte { return word(0xf9400000 | uint32(o/8)<<10 | from<<5 | to) },
		load32: func(to, from uint32, o int32) []byte { return word(0xb9400000 | uint32(o/4)<<10 | from<<5 | to) },
		load8:  func(to, from uint32, o int32) []byte { return word(0x39400000 | uint32(o)<<10 | from<<5 | to) },
		store:  func(from, to uint32, o int32) []byte { return word(0xf9000000 | uint32(o/8)<<10 | to<<5 | from) },
		store8: func(from, to uint32) []byte { return word(0x39000000 | to<<5 | from) },
		alloc:  func() []byte { return word(0xd14007ff) }, // SUB SP, SP, #1, LSL #12
		sys:    func(nr int32) []byte { return append(move(8, nr), word(0xd4000001)...) },
		result: func(r uint32) []byte { return mov(r, 0) },
		branch: func(c cond, d int32) []byte {
			return word(0x54000000 | uint32(d/4)&0x7ffff<<5 | [...]uint32{eq: 0, ne: 1, lt: 11}[c])
		},
		jump: func(d int32) []byte { return word(0x14000000 | uint32(d/4)&0x3ffffff) },
		address: func(r uint32, d int32) []byte {
			return word(0x10000000 | uint32(d)&3<<29 | uint32(d>>2)&0x7ffff<<5 | r)
		},
	}
}

func amd64Calls(name string) int32 { return callNumber(name, 0) }
func arm64Calls(name string) int32 { return callNumber(name, 1) }

// callNumber is a call's number on amd64 and on arm64.
func callNumber(name string, column int) int32 {
	for _, c := range []struct {
		name string
		nr   [2]int32
	}{
		{"clone", [2]int32{56, 220}},
		{"close", [2]int32{3, 57}},
		{"execve", [2]int32{59, 221}},
		{"exit_group", [2]int32{231, 94}},
		{"fcntl", [2]int32{72, 25}},
		{"getpid", [2]int32{39, 172}},
		{"getppid", [2]int32{110, 173}},
		{"ioctl", [2]int32{16, 29}},
		{"kill", [2]int32{62, 129}},
		{"openat", [2]int32{257, 56}},
		{"pidfd_open", [2]int32{434, 434}},
		{"ppoll", [2]int32{271, 73}},
		{"prctl", [2]int32{157, 167}},
		{"read", [2]int32{0, 63}},
		{"rt_sigaction", [2]int32{13, 134}},
		{"rt_sigprocmask", [2]int32{14, 135}},
		{"rt_sigtimedwait", [2]int32{128, 137}},
		{"setpgid", [2]int32{109, 154}},
		{"setsid", [2]int32{112, 157}},
		{"wait4", [2]int32{61, 260}},
		{"write", [2]int32{1, 64}},
	} {
		if c.name == name {
			return c.nr[column]
		}
	}
	return -1 // ENOSYS
}
