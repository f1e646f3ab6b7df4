// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @title IFillVerifier
/// @notice Decides on the sell chain whether a fill took place on the buy chain.
/// @dev The Escrow trusts its verifier entirely for claims: a verifier that accepts a false proof gives the locked
/// tokens to the solver, one that accepts nothing lets every lock run into its refund.
interface IFillVerifier {
    /// @notice Whether `proof` shows that the Settlement of `fillChain` recorded `fillHash` for `orderId`.
    /// @param fillChain Chain id on which the fill is said to have happened.
    /// @param orderId Fill of a swap, as locked in the Escrow.
    /// @param fillHash Hash of what had to be paid, to whom and by when.
    /// @param proof Evidence in the verifier's own format.
    /// @return True if the proof holds. False, or a revert, refuses it.
    function verify(uint256 fillChain, bytes32 orderId, bytes32 fillHash, bytes calldata proof)
        external
        view
        returns (bool);
}
