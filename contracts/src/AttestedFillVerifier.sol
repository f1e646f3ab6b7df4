// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {IFillVerifier} from "./IFillVerifier.sol";

/// @title AttestedFillVerifier
/// @notice Accepts a fill on the word of a single attester who watches the buy chain.
/// @dev TRUST: the attester is trusted in full. Whoever holds its key can release any locked tokens to the solver
/// recorded in the Escrow without the receiver having been paid, and by withholding signatures can deny a solver who
/// did pay. It cannot redirect tokens to itself or to anyone but that solver or, by refund, the owner. This verifier
/// stands in until fills are proven from the buy chain's storage; the attester cannot be changed, so replacing it
/// means deploying a new Settlement with a new verifier.
contract AttestedFillVerifier is IFillVerifier, EIP712 {
    /// @notice EIP-712 type hash of what the attester signs.
    bytes32 public constant ATTESTATION_TYPEHASH =
        keccak256("Attestation(uint256 fillChain,bytes32 orderId,bytes32 fillHash)");

    /// @notice The account whose signature is believed.
    address public immutable attester;

    /// @notice The attester must not be the zero address.
    error ZeroAttester();

    /// @param attester_ Account whose signature is believed. Must be an EOA; it is never changed.
    constructor(address attester_) EIP712("Thalweg Attestation", "1") {
        if (attester_ == address(0)) revert ZeroAttester();
        attester = attester_;
    }

    /// @inheritdoc IFillVerifier
    /// @dev `proof` is the attester's 65-byte ECDSA signature with low s over {attestationDigest}.
    function verify(uint256 fillChain, bytes32 orderId, bytes32 fillHash, bytes calldata proof)
        external
        view
        returns (bool)
    {
        (address signer, ECDSA.RecoverError err,) =
            ECDSA.tryRecoverCalldata(attestationDigest(fillChain, orderId, fillHash), proof);
        return err == ECDSA.RecoverError.NoError && signer == attester;
    }

    /// @notice The EIP-712 digest the attester signs. The domain is this contract on the escrow's chain.
    /// @param fillChain Chain id on which the fill happened.
    /// @param orderId Fill of a swap, as locked in the Escrow.
    /// @param fillHash Hash recorded by the Settlement of the fill chain.
    /// @return The digest.
    function attestationDigest(uint256 fillChain, bytes32 orderId, bytes32 fillHash) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(ATTESTATION_TYPEHASH, fillChain, orderId, fillHash)));
    }

    /// @notice EIP-712 domain separator of attestations on this chain.
    /// @return The separator.
    function domainSeparator() external view returns (bytes32) {
        return _domainSeparatorV4();
    }
}
