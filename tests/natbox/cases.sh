# The cases of the kernel NAT lab, for sourcing by bash scripts together with lab.sh.
#
# cases prints a line for each: NAME EXPECTED KEY=VALUE.. The keys are those of lab_up, and
#   loss=0 jitter=0     per cent of the packets lost, and milliseconds that a packet may be late
#   way=open            closed: nothing passes between the two sites, only to and from the server
#   event=none          what happens to A's network in mid-conversation:
#                       move: the host changes to another network; restart: the router is off for a second and gets
#                       another address; rebind: it forgets its mappings; cut: nothing passes between the two sites for
#                       three seconds; age: its mappings end by themselves, three times while the two talk
#   server=one          two: the rendezvous has a second IP
#   limit=8             seconds to find a direct path
#   timed=no            yes: runs alone, because its figures are times
# EXPECTED is what carries the messages in the end: direct, relay, or lan where the internet sees nothing of them; guess
# is direct where the ports are guessed right, judged by the count of several runs.
#
# Expected paths follow from RFC 4787 alone: with endpoint-independent mapping on both sides, or with filtering that
# ignores ports opposite a mapping that does not, the two can meet. Where one side maps every destination to another
# port and the other filters by port, one of them has to guess; so have both where both count their ports. Where one maps
# to random ports and the other's mapping depends on ports too, they cannot meet.
cases() {
    simple_pairs
    guessed_pairs
    one_site
    distances
    two_routers
    families
    disturbances
    hopeless
}

simple_pairs() {
    local a b expected
    for a in $LAB_KINDS; do
        for b in $LAB_KINDS; do
            case "$a:$b" in
                portrestricted:symmetric | symmetric:portrestricted) continue ;;
                symmetric:symmetric) expected=relay ;;
                *) expected=direct ;;
            esac
            echo "$a:$b $expected a=$a b=$b timed=yes"
        done
    done
    echo "reject direct a=portrestricted b=portrestricted input=reject timed=yes"
    echo "accept direct a=portrestricted b=portrestricted input=accept timed=yes"
    echo "accept-restricted direct a=restricted b=restricted input=accept timed=yes"
}

# Direct for those who guess ports (`guess`), else relayed.
guessed_pairs() {
    cat <<'CASES'
portrestricted:symmetric guess a=portrestricted b=symmetric
symmetric:portrestricted guess a=symmetric b=portrestricted
double-symmetric:portrestricted guess a=portrestricted carrier=symmetric topology=carrier-a b=portrestricted
adm-eif-rand:portrestricted guess a=adm-eif-rand b=portrestricted server=two limit=1.5
adm-adf-rand:portrestricted guess a=adm-adf-rand b=portrestricted
adm-apdf-rand:portrestricted guess a=adm-apdf-rand b=portrestricted server=two
apdm-apdf-seq1:portrestricted guess a=apdm-apdf-seq1 b=portrestricted
apdm-apdf-seq3:portrestricted guess a=apdm-apdf-seq3 b=portrestricted
apdm-apdf-block:portrestricted guess a=apdm-apdf-block b=portrestricted
apdm-apdf-seq1:apdm-apdf-seq1 guess a=apdm-apdf-seq1 b=apdm-apdf-seq1
CASES
}

# Both hosts behind one router, or both routers behind one carrier's.
one_site() {
    cat <<'CASES'
same-lan lan topology=lan a=portrestricted
same-lan-hairpin lan topology=lan a=portrestricted hairpin=on
isolated relay topology=lan a=portrestricted ports=isolated
isolated-hairpin lan topology=lan a=portrestricted ports=isolated hairpin=on
cgnat relay topology=carrier carrier=portrestricted a=portrestricted b=portrestricted
cgnat-hairpin lan topology=carrier carrier=portrestricted a=portrestricted b=portrestricted hairpin=on
CASES
}

distances() {
    cat <<'CASES'
loss-5 direct a=portrestricted b=portrestricted loss=5
loss-20 direct a=portrestricted b=portrestricted loss=20
relay-loss-20 relay a=symmetric b=symmetric loss=20
unequal direct a=portrestricted b=portrestricted delay_a=20 delay_b=75
unequal-jitter direct a=portrestricted b=portrestricted delay_a=20 delay_b=75 jitter=20
CASES
}

# A home behind a carrier's router opposite a plain one, and two homes with the same private addresses.
two_routers() {
    cat <<'CASES'
cgnat:portrestricted direct topology=carrier-a carrier=portrestricted a=portrestricted b=portrestricted
double-symmetric:restricted direct topology=carrier-a carrier=symmetric a=portrestricted b=restricted
same-range direct a=portrestricted b=portrestricted range=same
user-space direct a=eim-apdf-rand b=eim-apdf-pres
CASES
}

families() {
    cat <<'CASES'
ipv6-firewall direct topology=six a=symmetric b=symmetric
ipv6-one-side direct topology=six-a a=portrestricted b=portrestricted
ipv6-only:ipv4-only relay topology=six-only
CASES
}

disturbances() {
    cat <<'CASES'
move direct topology=roam a=portrestricted b=portrestricted event=move
restart direct a=portrestricted b=portrestricted event=restart
rebind direct a=eim-apdf-rand b=portrestricted event=rebind
cut direct a=portrestricted b=portrestricted event=cut
age direct a=eim-apdf-rand-age25 b=portrestricted event=age
CASES
}

# No technique makes these direct.
hopeless() {
    cat <<'CASES'
double-symmetric:symmetric relay topology=carrier-a carrier=symmetric a=portrestricted b=symmetric
apdm-apdf-seq1:symmetric relay a=apdm-apdf-seq1 b=symmetric
closed relay a=portrestricted b=portrestricted way=closed
closed-public relay way=closed
CASES
}
